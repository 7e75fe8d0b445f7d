//! Remote sampling: the messages of the call and the JSON of the HTTP answer
//! (jaeger-idl:proto/api_v2/sampling.proto,
//! jaeger:internal/uimodel/converter/v1/json/sampling.go).

use crate::DecodeError;
use crate::protobuf::{Field, Reader, Writer};

/// Service that a `SamplingStrategyParameters` asks about; empty if it names
/// none.
///
/// # Errors
/// When the bytes are not that message, or the name is not UTF-8.
pub fn decode_sampling_question(body: &[u8]) -> Result<String, DecodeError> {
    let mut reader = Reader::new(body);
    let mut service = String::new();
    while let Some(field) = reader.next_field()? {
        match field {
            (1, Field::Len(at)) => {
                service = std::str::from_utf8(reader.bytes(at))
                    .map_err(|_| DecodeError::new("protobuf: the service name is not UTF-8"))?
                    .to_owned();
            }
            (1, _) => return Err(reader.wrong_type("SamplingStrategyParameters", 1)),
            _ => {}
        }
    }
    Ok(service)
}

/// A `SamplingStrategyResponse` that says "this part of the traces", 0..=1.
pub fn encode_sampling_proto(rate: f64) -> Vec<u8> {
    let mut out = Vec::with_capacity(11);
    let mut w = Writer::new(&mut out);
    // The type is PROBABILISTIC, which is 0 and therefore not written; its
    // part is, even where the rate is 0 and the part empty.
    let part = w.open(2);
    w.fixed64(1, rate.to_bits());
    w.close(part);
    drop(w);
    out
}

/// The same in JSON: names of the enum, defaults written, nothing that is null.
pub fn encode_sampling_json(rate: f64) -> String {
    // Shortest notation; exponents below 1e-6, as Go writes them.
    let rate = if rate != 0.0 && rate < 1e-6 { format!("{rate:e}") } else { rate.to_string() };
    format!("{{\"strategyType\":\"PROBABILISTIC\",\"probabilisticSampling\":{{\"samplingRate\":{rate}}}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_a_service() {
        for (body, service) in [
            (&b""[..], Some("")),
            (b"\x0a\x03web", Some("web")),
            (b"\x0a\x01a\x0a\x03web\x10\x05", Some("web")),
            (b"\x0a\x01\xff", None),
            (b"\x0a\x09web", None),
            (b"\x08\x01", None),
        ] {
            assert_eq!(decode_sampling_question(body).ok().as_deref(), service, "{body:?}");
        }
    }

    #[test]
    fn answers_always_have_the_rate() {
        assert_eq!(encode_sampling_proto(0.25), [18, 9, 9, 0, 0, 0, 0, 0, 0, 0xd0, 0x3f]);
        assert_eq!(encode_sampling_proto(0.0), [18, 0]);
        for (rate, text) in [(1.0, "1"), (0.0, "0"), (0.25, "0.25"), (1.2e-7, "1.2e-7")] {
            assert!(
                encode_sampling_json(rate).ends_with(&format!("{{\"samplingRate\":{text}}}}}")),
                "{rate}"
            );
        }
    }
}
