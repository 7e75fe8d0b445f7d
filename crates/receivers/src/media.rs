//! Content types.

/// The media type in lower case without parameters; `None` if it is malformed.
pub(crate) fn media_type(value: &str) -> Option<String> {
    let mut parts = value.split(';');
    let kind = parts.next()?.trim().to_ascii_lowercase();
    let token = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let valid = match kind.split_once('/') {
        Some((a, b)) => token(a) && token(b),
        None => token(&kind),
    };
    let parameters = parts.map(str::trim).filter(|p| !p.is_empty());
    let valid =
        valid && parameters.into_iter().all(|p| p.split_once('=').is_some_and(|(k, _)| token(k.trim())));
    valid.then_some(kind)
}
