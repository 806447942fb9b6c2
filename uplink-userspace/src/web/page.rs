//! The status page: one file, which loads nothing from anywhere else.

use hyper::body::Bytes;

const PAGE: &str = include_str!("page.html");
/// Stands in the page where the nonce goes.
const NONCE: &str = "@NONCE@";

/// The page and the policy that it keeps to. Style and script run by a nonce of this response
/// alone, so nothing that found its way into the page would.
pub(super) fn page() -> std::io::Result<(Bytes, String)> {
    let random: [u8; 16] = crate::probe::random()?;
    let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Ok((PAGE.replace(NONCE, &nonce).into(), policy))
}
