//! HTTP URLs: user information always goes, query and digits by setting.
//! Rules: `datadog-agent:pkg/obfuscate/http.go`; what a URL is, and how it is
//! printed, follows Go's `net/url`, since that is what the reference shows.

use std::borrow::Cow;

use memchr::{memchr, memrchr};

use crate::config::HttpConfig;

/// A text that is not a URL shows nothing once an option is on.
const HIDDEN: &str = "?";
/// The reference marks hidden segments so until the very end, and hides what
/// looks like the mark.
const MARK: &str = "/REDACTED/";

/// Scrubs a URL.
pub(crate) fn obfuscate(text: &str, config: HttpConfig) -> Cow<'_, str> {
    let any = config.remove_query_string || config.remove_paths_with_digits;
    if !any && let Some(printed) = plain(text) {
        return printed;
    }
    let Some(mut url) = Url::parse(text) else {
        return if any { Cow::Borrowed(HIDDEN) } else { without_userinfo(text) };
    };
    if config.remove_query_string && !url.query.is_empty() {
        url.query = "";
        url.force_query = true;
    }
    if config.remove_paths_with_digits {
        url.hide_digits();
    }
    let mut out = url.print();
    if any && out.contains(MARK) {
        out = out.replace(MARK, HIDDEN);
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// What a byte may stand in, in the plainest of URLs.
const IN_SCHEME: u8 = 1;
const IN_HOST: u8 = 2;
const IN_PATH: u8 = 4;
const IN_QUERY: u8 = 8;
const DIGIT: u8 = 16;
/// In a path: printed as an escape, and so is whatever else of that path may
/// be; such as the brackets of `/users/<id>`.
const TO_ESCAPE: u8 = 32;
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'~') {
            class[b] |= IN_HOST | IN_PATH;
        }
        if c.is_ascii_lowercase() {
            class[b] |= IN_SCHEME;
        }
        if c.is_ascii_digit() {
            class[b] |= DIGIT;
        }
        // What `valid_encoding` lets pass, without the `%`.
        if matches!(c, b'!' | b'$' | b'&'..=b',' | b'/' | b':' | b';' | b'=' | b'@' | b'[' | b']') {
            class[b] |= IN_PATH;
        }
        if c >= b' ' && c != 0x7f && c != b'#' {
            class[b] |= IN_QUERY;
            if class[b] & IN_PATH == 0 && c != b'%' && c != b'?' {
                class[b] |= TO_ESCAPE;
            }
        }
        b += 1;
    }
    class
};

fn class_end(bytes: &[u8], mut at: usize, class: u8) -> usize {
    while at < bytes.len() && CLASS[usize::from(bytes[at])] & class != 0 {
        at += 1;
    }
    at
}

/// A path, or `scheme://host` and what follows, without anything that would be
/// read in more than one way: neither user information nor escapes, nor a
/// fragment. As [`Url`] prints it; a test says so. `None`: not so simple.
fn plain(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    if bytes.first() != Some(&b'/') {
        let scheme = class_end(bytes, 0, IN_SCHEME);
        if scheme == 0 || !bytes[scheme..].starts_with(b"://") {
            return None;
        }
        let host = scheme + 3;
        at = class_end(bytes, host, IN_HOST);
        if at == host {
            return None;
        }
        if bytes.get(at) == Some(&b':') {
            at = class_end(bytes, at + 1, DIGIT);
        }
    } else if bytes.get(1) == Some(&b'/') {
        return None;
    }
    let path = at;
    let mut as_it_came = true;
    if bytes.get(at) == Some(&b'/') {
        at = class_end(bytes, at, IN_PATH);
        if at < bytes.len() && CLASS[usize::from(bytes[at])] & TO_ESCAPE != 0 {
            as_it_came = false;
            at = class_end(bytes, at, IN_PATH | TO_ESCAPE);
        }
    }
    let query = at;
    if bytes.get(at) == Some(&b'?') {
        at = class_end(bytes, at, IN_QUERY);
    }
    if at < bytes.len() {
        return None;
    }
    if as_it_came {
        return Some(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..path]);
    push_escaped(&mut out, &bytes[path..query], Part::Path);
    out.push_str(&text[query..]);
    Some(Cow::Owned(out))
}

/// Removes what may be user information from a text that is not a URL. An `@`
/// in the authority ends it. A colon in the authority that no port follows is
/// taken for a password cut by one of its own characters, and everything up to
/// the last `@` of the text goes.
fn without_userinfo(text: &str) -> Cow<'_, str> {
    let start = text.find("//").map_or(0, |at| at + 2);
    let rest = &text[start..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let end = match authority.rfind('@') {
        Some(at) if names_nobody(&authority[..at]) => return Cow::Borrowed(text),
        Some(at) => at + 1,
        None => match memrchr(b'@', rest.as_bytes()) {
            Some(at) if has_no_port(authority) => at + 1,
            _ => return Cow::Borrowed(text),
        },
    };
    Cow::Owned(format!("{}{}", &text[..start], &rest[end..]))
}

/// Nothing, or a short name with an empty password: no secret fits in there, and the
/// reference shows it. Longer ones may be tokens.
fn names_nobody(userinfo: &str) -> bool {
    userinfo.is_empty()
        || userinfo.strip_suffix(':').is_some_and(|name| name.len() <= 8 && !name.contains(':'))
}

/// Whether the authority in an opaque part ends in something that is neither a
/// host nor a port, so that a `?` or `#` may have cut a password.
fn cut_password(opaque: &str) -> bool {
    opaque.split_once("//").is_some_and(|(_, rest)| {
        let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
        !authority.contains('@') && has_no_port(authority)
    })
}

/// A colon that no port follows, unless what stands before it can only be a host.
fn has_no_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(name, port)| {
        let address = || name.contains('.') && name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let host = name.eq_ignore_ascii_case("localhost") || name.starts_with('[') || address();
        !host && !port.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Schemes whose `@` belongs to an address.
const ADDRESSES: [&str; 6] = ["mailto", "sip", "sips", "xmpp", "acct", "im"];

/// The same for what follows a scheme without slash, such as
/// `jdbc:mysql://user:password@host/`, which the reference does not look into.
fn opaque_without_userinfo<'a>(scheme: &str, opaque: &'a str) -> Cow<'a, str> {
    if !opaque.contains('@') || ADDRESSES.contains(&scheme) {
        return Cow::Borrowed(opaque);
    }
    without_userinfo(opaque)
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Host,
    Zone,
    Path,
    Fragment,
    User,
}

fn must_escape(b: u8, part: Part) -> bool {
    match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => false,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'[' | b']'
        | b'<' | b'>' | b'"'
            if matches!(part, Part::Host | Part::Zone) =>
        {
            false
        }
        b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'?' | b'@' => match part {
            Part::Path => b == b'?',
            Part::Fragment => false,
            _ => true,
        },
        b'!' | b'(' | b')' | b'*' => part != Part::Fragment,
        _ => true,
    }
}

/// Decodes `%XX`; `None` where the text is not a valid encoding of the part.
fn unescape(text: &str, part: Part) -> Option<Cow<'_, [u8]>> {
    let bytes = text.as_bytes();
    let host = matches!(part, Part::Host | Part::Zone);
    let mut out: Option<Vec<u8>> = None;
    let mut pos = 0;
    while pos < bytes.len() {
        let b = bytes[pos];
        if b != b'%' {
            if host && b < 0x80 && must_escape(b, part) {
                return None;
            }
            if let Some(out) = &mut out {
                out.push(b);
            }
            pos += 1;
            continue;
        }
        let hex = bytes.get(pos + 1..pos + 3)?;
        let high = (hex[0] as char).to_digit(16)?;
        let low = (hex[1] as char).to_digit(16)?;
        let value = (high * 16 + low) as u8;
        if part == Part::Host && high < 8 && hex != b"25" {
            return None;
        }
        if part == Part::Zone && hex != b"25" && value != b' ' && must_escape(value, Part::Host) {
            return None;
        }
        out.get_or_insert_with(|| bytes[..pos].to_vec()).push(value);
        pos += 3;
    }
    Some(out.map_or(Cow::Borrowed(bytes), Cow::Owned))
}

fn push_escaped(out: &mut String, bytes: &[u8], part: Part) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if must_escape(b, part) {
            out.push('%');
            out.push(HEX[usize::from(b >> 4)] as char);
            out.push(HEX[usize::from(b & 15)] as char);
        } else {
            // Only ASCII needs no escape.
            out.push(b as char);
        }
    }
}

/// A text that may be printed as it came, though it is not the default encoding.
fn valid_encoding(text: &str, part: Part) -> bool {
    text.bytes().all(|b| b"!$&'()*+,;=:@[]%".contains(&b) || !must_escape(b, part))
}

/// Prints a path or fragment: as it came if that is a valid encoding.
fn push_component(out: &mut String, raw: &str, decoded: &[u8], part: Part) {
    if valid_encoding(raw, part) {
        out.push_str(raw);
    } else {
        push_escaped(out, decoded, part);
    }
}

struct Url<'a> {
    scheme: String,
    opaque: Cow<'a, str>,
    host: Vec<u8>,
    omit_host: bool,
    raw_path: &'a str,
    path: Cow<'a, [u8]>,
    /// The path is no longer what `raw_path` encodes.
    path_changed: bool,
    query: &'a str,
    force_query: bool,
    raw_fragment: &'a str,
    fragment: Cow<'a, [u8]>,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (main, raw_fragment) = text.split_once('#').unwrap_or((text, ""));
        if main.bytes().any(|b| b < b' ' || b == 0x7f) {
            return None;
        }
        let mut url = Self {
            scheme: String::new(),
            opaque: Cow::Borrowed(""),
            host: Vec::new(),
            omit_host: false,
            raw_path: "",
            path: Cow::Borrowed(b""),
            path_changed: false,
            query: "",
            force_query: false,
            raw_fragment,
            fragment: unescape(raw_fragment, Part::Fragment)?,
        };
        if main == "*" {
            url.raw_path = "*";
            url.path = Cow::Borrowed(b"*");
            return Some(url);
        }
        let (scheme, rest) = split_scheme(main)?;
        url.scheme = scheme.to_ascii_lowercase();
        let (mut rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query;
        url.force_query = query.is_empty() && main.ends_with('?');
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                if cut_password(rest) && text[main.len() - query.len()..].contains('@') {
                    return None;
                }
                url.opaque = opaque_without_userinfo(&url.scheme, rest);
                return Some(url);
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return None;
            }
        }
        let authority = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"));
        if let Some(authority) = authority {
            let end = memchr(b'/', authority.as_bytes()).unwrap_or(authority.len());
            url.host = authority_host(&url.scheme, &authority[..end])?;
            rest = &authority[end..];
        } else if !scheme.is_empty() && rest.starts_with('/') {
            url.omit_host = true;
        }
        url.raw_path = rest;
        url.path = unescape(rest, Part::Path)?;
        Some(url)
    }

    fn hide_digits(&mut self) {
        if !self.path.iter().any(u8::is_ascii_digit) {
            return;
        }
        let mut path = Vec::with_capacity(self.path.len());
        for (at, segment) in self.path.split(|&b| b == b'/').enumerate() {
            if at > 0 {
                path.push(b'/');
            }
            let hide = segment.iter().any(u8::is_ascii_digit);
            path.extend_from_slice(if hide { MARK.as_bytes() } else { segment });
        }
        self.path = Cow::Owned(path);
        self.path_changed = true;
    }

    fn print(&self) -> String {
        let mut out = String::with_capacity(self.raw_path.len() + self.host.len() + self.query.len() + 32);
        if !self.scheme.is_empty() {
            out.push_str(&self.scheme);
            out.push(':');
        }
        if !self.opaque.is_empty() {
            out.push_str(&self.opaque);
        } else {
            self.print_path(&mut out);
        }
        if self.force_query || !self.query.is_empty() {
            out.push('?');
            out.push_str(self.query);
        }
        if !self.fragment.is_empty() {
            out.push('#');
            push_component(&mut out, self.raw_fragment, &self.fragment, Part::Fragment);
        }
        out
    }

    fn print_path(&self, out: &mut String) {
        let has_host = !self.host.is_empty();
        // `file:///x` has an empty host, `x:/y` has none.
        if has_host || (!self.scheme.is_empty() && !self.omit_host && !self.path.is_empty()) {
            out.push_str("//");
            push_escaped(out, &self.host, Part::Host);
        }
        let mut path = String::with_capacity(self.raw_path.len() + 16);
        if self.path_changed {
            push_escaped(&mut path, &self.path, Part::Path);
        } else if &*self.path == b"*" {
            path.push('*');
        } else {
            push_component(&mut path, self.raw_path, &self.path, Part::Path);
        }
        if has_host && !path.is_empty() && !path.starts_with('/') {
            out.push('/');
        }
        // A colon in the first segment would look like a scheme.
        if out.is_empty() && path.split('/').next().is_some_and(|segment| segment.contains(':')) {
            out.push_str("./");
        }
        out.push_str(&path);
    }
}

/// Scheme and rest. `None` for a text that begins with a colon.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at > 0 => return Some((&text[..at], &text[at + 1..])),
            b':' => return None,
            _ => break,
        }
    }
    Some(("", text))
}

/// The host of an authority, decoded; `None` if it is not valid.
fn authority_host(scheme: &str, authority: &str) -> Option<Vec<u8>> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
            if !user.bytes().all(allowed) {
                return None;
            }
            unescape(user, Part::User)?;
            host
        }
        None => authority,
    };
    let port_valid = |port: &str| {
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
    };
    match host.rfind('[') {
        Some(0) => {
            let close = host.rfind(']')?;
            if !port_valid(&host[close + 1..]) {
                return None;
            }
            let name = &host[1..close];
            let zone = name.find("%25").unwrap_or(name.len());
            let mut address = unescape(&name[..zone], Part::Host)?.into_owned();
            address.extend_from_slice(&unescape(&name[zone..], Part::Zone)?);
            if !is_v6_literal(std::str::from_utf8(&address).ok()?) {
                return None;
            }
            let mut out = vec![b'['];
            out.extend_from_slice(&address);
            out.push(b']');
            out.extend_from_slice(&host.as_bytes()[close + 1..]);
            return Some(out);
        }
        Some(_) => return None,
        None => {}
    }
    // Several colons are an address without brackets: tolerated, but not for
    // the web (Go 1.26; databases list several hosts this way).
    let colon = if matches!(scheme, "http" | "https") { host.find(':') } else { host.rfind(':') };
    if colon.is_some_and(|at| !port_valid(&host[at..])) {
        return None;
    }
    Some(unescape(host, Part::Host)?.into_owned())
}

fn is_v6_literal(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, z)| (a, Some(z)));
    zone != Some("") && address.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All texts of up to four pieces that a URL consists of, and some longer ones.
    #[test]
    fn plain_urls_are_printed_as_the_others_are() {
        const PIECES: [&str; 21] = [
            "http", "ftp", "HTTP", "://", "//", "/", "a.b-c", "_x~", ":", ":80", "@", "?", "#", "a=b", "*",
            "[", "<>", "%41", "é", " ", "\n",
        ];
        let (mut same, mut escaped) = (0, 0);
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            texts = texts.iter().flat_map(|text| PIECES.map(|piece| format!("{text}{piece}"))).collect();
            for text in &texts {
                for text in [text.clone(), format!("http://h{text}"), format!("/p?{text}")] {
                    if let Some(printed) = plain(&text) {
                        *(if printed == text { &mut same } else { &mut escaped }) += 1;
                        assert_eq!(Url::parse(&text).map(|url| url.print()).as_deref(), Some(&*printed));
                    }
                }
            }
        }
        assert!(same > 10_000 && escaped > 10_000, "{same} {escaped}");
    }
}
