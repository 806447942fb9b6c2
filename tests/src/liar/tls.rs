//! An authority of the lab's own, and certificates that it signs.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Page;
use super::web::NAME;
use crate::topology::{Family, servers};

/// One certificate that the authority in the file signed, and one that it did not.
pub(super) struct Identities {
    trusted: Arc<ServerConfig>,
    untrusted: Arc<ServerConfig>,
}

impl Identities {
    /// The one that a page is served with, if it is served by TLS.
    pub(super) fn of(&self, page: Page) -> Option<Arc<ServerConfig>> {
        match page {
            Page::Tls => Some(self.trusted.clone()),
            Page::Untrusted => Some(self.untrusted.clone()),
            _ => None,
        }
    }
}

/// Makes both, and writes the authority's certificate to `file`.
pub(super) fn identities(file: &str) -> Result<Identities> {
    let (ours, pem) = authority("The lab's authority")?;
    std::fs::write(file, pem).with_context(|| file.to_owned())?;
    let (theirs, _) = authority("Nobody's authority")?;
    Ok(Identities {
        trusted: signed_by(&ours)?,
        untrusted: signed_by(&theirs)?,
    })
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn signed_by(authority: &Issuer<'_, KeyPair>) -> Result<Arc<ServerConfig>> {
    let addresses = Family::ALL.into_iter().flat_map(servers);
    let names: Vec<String> = addresses.map(|a| a.to_string()).chain([NAME.into()]).collect();
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&key, authority)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}
