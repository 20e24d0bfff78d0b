//! Values as DataJoint's blobs of plain Python values (its format `dj0`).

use serde_json::Value;

/// A JSON value as a blob that DataJoint's `fetch` gives back as dict, list, str, int, float, bool or None.
pub fn blob(value: &Value) -> Vec<u8> {
    [b"dj0\0", &packed(value)[..]].concat()
}

fn packed(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => vec![0xff],
        Value::Bool(yes) => vec![0x0b, u8::from(*yes)],
        Value::Number(number) => match number.as_i64() {
            Some(whole) if !number.is_f64() => integer(whole),
            _ => [&[0x0d][..], &number.as_f64().unwrap_or(f64::NAN).to_le_bytes()].concat(),
        },
        Value::String(text) => string(text),
        Value::Array(list) => {
            let mut out = vec![2];
            out.extend((list.len() as u64).to_le_bytes());
            for item in list {
                sized(&mut out, &packed(item));
            }
            out
        }
        Value::Object(table) => {
            let mut out = vec![4];
            out.extend((table.len() as u64).to_le_bytes());
            for (key, value) in table {
                sized(&mut out, &string(key));
                sized(&mut out, &packed(value));
            }
            out
        }
    }
}

fn sized(out: &mut Vec<u8>, item: &[u8]) {
    out.extend((item.len() as u64).to_le_bytes());
    out.extend(item);
}

fn string(text: &str) -> Vec<u8> {
    let mut out = vec![5];
    sized(&mut out, text.as_bytes());
    out
}

/// In as many bytes as it needs, with a sign.
fn integer(value: i64) -> Vec<u8> {
    let bits = 64 - value.unsigned_abs().leading_zeros() as usize;
    let n = bits / 8 + 1;
    let mut out = vec![0x0a];
    out.extend((n as u16).to_le_bytes());
    let bytes = i128::from(value).to_le_bytes();
    out.extend(&bytes[..n]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Made by datajoint 0.14.10: `blob.pack(value, compress=False)`.
    #[test]
    fn blobs_are_the_bytes_that_datajoint_makes() {
        let vectors = include_str!("../../tests/vectors/datajoint_blobs.json");
        let vectors: Vec<(Value, String)> = serde_json::from_str(vectors).unwrap();
        assert!(vectors.len() > 20);
        for (value, expected) in &vectors {
            let found: String = blob(value).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, *expected, "{value}");
        }
        assert_eq!(blob(&json!(null)), b"dj0\0\xff");
    }
}
