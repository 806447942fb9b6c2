//! HTTP and HTTPS: a GET whose status tells, and whose body is not read.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::kinds::{Refused, Reply, Way, connect, unsent};
use crate::config::{self, Target};

/// What is read of a server at most, TLS handshake and all: 64 KiB.
const LONGEST: u64 = 64 * 1024;
const AGENT: &str = concat!("uplink/", env!("CARGO_PKG_VERSION"));

/// A GET that can be asked of any target.
#[derive(Debug)]
pub(super) struct Get {
    settings: config::Http,
    path: PathAndQuery,
    /// The Host field and the name in the certificate, where they are not the target's address.
    host: Option<(HeaderValue, ServerName<'static>)>,
    tls: Option<Arc<ClientConfig>>,
}

impl Get {
    /// Reads the CA file, if any, and judges path and host.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(settings: &config::Http) -> Result<Self> {
        let path = &settings.path;
        ensure!(
            path.starts_with('/'),
            "the path {path:?} of the HTTP probe does not begin with \"/\""
        );
        let parsed = path.parse();
        let path = parsed.with_context(|| format!("{path:?} is no path: escape what is not ASCII"))?;
        let host = settings.host.as_deref().map(host).transpose()?;
        let tls = settings.tls.then(|| trust(settings.ca.as_deref())).transpose()?;
        let settings = settings.clone();
        Ok(Self {
            settings,
            path,
            host,
            tls,
        })
    }

    /// Connects and asks.
    pub async fn ask(&self, way: &Way, target: Target, refused: &Refused) -> Reply {
        let stream = match connect(way, target).await {
            Ok(stream) => stream,
            Err(failure) => return unsent(&failure, refused),
        };
        let (reader, writer) = tokio::io::split(stream);
        let stream = tokio::io::join(reader.take(LONGEST), writer);
        match self.status(stream, target).await {
            Ok(status) if self.expects(status) => Reply::Answered,
            Ok(_) => self.refuse("http-status", refused),
            Err(why) => self.refuse(why, refused),
        }
    }

    fn refuse(&self, why: &'static str, refused: &Refused) -> Reply {
        refused.note(why);
        Reply::Lost
    }

    fn expects(&self, status: StatusCode) -> bool {
        self.settings
            .status
            .iter()
            .any(|range| range.contains(&status.as_u16()))
    }

    /// The status, or why there is none.
    async fn status<S>(&self, stream: S, target: Target) -> Result<StatusCode, &'static str>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let request = self.request(target);
        let Some(tls) = &self.tls else {
            return exchange(stream, request).await.map_err(|_| "http-head");
        };
        let name = self.name(target.address);
        let secured = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let stream = secured.map_err(|_| "tls")?;
        exchange(stream, request).await.map_err(|_| "http-head")
    }

    /// The name in the server's certificate.
    fn name(&self, address: IpAddr) -> ServerName<'static> {
        match &self.host {
            Some((_, name)) => name.clone(),
            None => ServerName::IpAddress(address.into()),
        }
    }

    fn request(&self, target: Target) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.path.clone().into();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host_field(target));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        request
    }

    /// RFC 9110, 7.2: the port is named unless it is the scheme's own.
    fn host_field(&self, target: Target) -> HeaderValue {
        if let Some((field, _)) = &self.host {
            return field.clone();
        }
        let own = if self.settings.tls { 443 } else { 80 };
        let text = match (target.address, target.port) {
            (IpAddr::V6(address), port) if port == own => format!("[{address}]"),
            (IpAddr::V4(address), port) if port == own => address.to_string(),
            (address, port) => std::net::SocketAddr::new(address, port).to_string(),
        };
        HeaderValue::try_from(text).expect("an address has no control characters")
    }
}

/// The Host field, and the name without its port.
fn host(text: &str) -> Result<(HeaderValue, ServerName<'static>)> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok((
            HeaderValue::try_from(format!("[{address}]"))?,
            IpAddr::from(address).into(),
        ));
    }
    let wrong = || format!("{text:?} is no host: give a name or an address, with a port if it needs one");
    let authority: Authority = text.parse().with_context(wrong)?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(name.to_owned()).with_context(wrong)?;
    Ok((HeaderValue::from_str(text).with_context(wrong)?, name))
}

/// Who is trusted: the authorities in a PEM file alone, or the web's.
fn trust(ca: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let roots = match ca {
        Some(path) => read(path).with_context(|| format!("reading the authorities in {}", path.display()))?,
        None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    };
    let provider = Arc::new(crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<RootCertStore> {
    let pem = fs::read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    ensure!(
        !roots.is_empty(),
        "it has no certificate: put at least one there, in PEM"
    );
    Ok(roots)
}

/// Sends the request and reads the head of the answer.
async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LONGEST as usize);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let answer = pin!(sender.send_request(request));
    // The inner future is dropped when it ends, so that an answer that cannot come any more fails.
    let drive = pin!(async move { connection.await.map_err(io::Error::other) });
    let answer = match futures::future::select(answer, drive).await {
        futures::future::Either::Left((answer, _)) => answer,
        futures::future::Either::Right((_, answer)) => answer.await,
    };
    Ok(answer?.status())
}

#[cfg(test)]
mod tests;
