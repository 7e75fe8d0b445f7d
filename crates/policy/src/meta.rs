//! Rules for the name and the mesh of every resource.

use crate::{Kind, Resource, Violation};

pub(crate) fn validate(r: &Resource, out: &mut Vec<Violation>) {
    if r.name.is_empty() {
        out.push(Violation::new("name", "cannot be empty"));
    } else {
        if r.name.len() > 253 {
            out.push(Violation::new("name", "value length must less or equal 253"));
        }
        // A Mesh of another form is accepted, with a warning in the answer of
        // a PUT (`kuma:pkg/api-server`).
        if !subdomain(&r.name) {
            out.push(Violation::new("name", "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"));
        }
        if r.kind == Kind::Mesh && r.name.len() > 63 {
            out.push(Violation::new("name", "cannot be longer than 63 characters"));
        }
    }
    let plain = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'_' | b'.');
    if r.kind != Kind::Mesh && !r.mesh.bytes().all(plain) {
        out.push(Violation::new("mesh", "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols."));
    }
}

fn subdomain(name: &str) -> bool {
    let part = |p: &str| {
        let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = p.as_bytes();
        ends(bytes.first())
            && ends(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    name.split('.').all(part)
}
