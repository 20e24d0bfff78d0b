//! The reference's hash of a configuration, so that its databases' keys can be matched (spec/trainer 6.2).

use md5::{Digest, Md5};
use serde_json::{Map, Number, Value};

/// MD5 in hexadecimal digits: of text its bytes; of a list the hashes of its elements; of a table each key and the
/// hash of its value, sorted by key; of anything else what Python's `str` makes of it. Empty text, lists and
/// tables are the same, as are 1 and "1".
pub fn reference_hash(value: &Value) -> String {
    let mut md5 = Md5::new();
    match value {
        Value::String(text) => md5.update(text),
        Value::Array(list) => list.iter().for_each(|item| md5.update(reference_hash(item))),
        Value::Object(table) => feed_table(&mut md5, table),
        Value::Null => md5.update("None"),
        Value::Bool(true) => md5.update("True"),
        Value::Bool(false) => md5.update("False"),
        Value::Number(number) => md5.update(python_number(number)),
    }
    md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn feed_table(md5: &mut Md5, table: &Map<String, Value>) {
    let mut keys: Vec<&String> = table.keys().collect();
    // Python sorts text by code points, which is the order of its UTF-8 bytes.
    keys.sort_unstable();
    for key in keys {
        md5.update(key);
        md5.update(reference_hash(&table[key]));
    }
}

fn python_number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => python_float(value),
        _ => number.to_string(),
    }
}

/// Python's `repr` of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16 on.
fn python_float(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Made by the reference's own code.
    #[test]
    fn hashes_equal_the_reference() {
        let nothing = "d41d8cd98f00b204e9800998ecf8427e";
        let one = "c4ca4238a0b923820dcc509a6f75849b";
        for (value, expected) in [
            (json!({"a": 5, "b": 3}), "42d0bac000cb73063836fbbd477927c4"),
            (json!({"b": 3, "a": 5}), "42d0bac000cb73063836fbbd477927c4"),
            (json!({}), nothing),
            (json!(""), nothing),
            (json!([]), nothing),
            (json!(1), one),
            (json!("1"), one),
            (json!([1, 2]), "302cbafc0dfbc97f30d576a6f394dad3"),
            (json!(0.0005), "0e2cfaf61f3ff5c07b054ea20af4284e"),
            (json!(1e-6), "01c7119b2e63d1290944cc9d9e84ddb8"),
            (json!(true), "f827cf462f62848df37c5e1e94a4da74"),
            (json!(null), "6adf97f83acf6453d4a6a4b1070f3754"),
            (json!([0, 0.5]), "512803582f7d584e11960c81d93539d6"),
            (json!({"1": 1}), "bc7235a51e34c1d3ebfddeb538c20c71"),
            (
                json!({"a": 1, "b": [1, 2.5, "x"], "c": {"d": null, "e": true}}),
                "b247620197078dee9fa12c49c1d9d281",
            ),
        ] {
            assert_eq!(reference_hash(&value), expected, "{value}");
        }
    }

    /// The settings of the paper's recipes, as the reference resolves them, and the hashes that spec/trainer 10.3
    /// has of them.
    #[test]
    fn hashes_of_the_paper_s_recipes_and_of_a_chain_equal_the_reference() {
        let recipes: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/vectors/reference_recipes.json")).unwrap();
        assert_eq!(recipes.len(), 9);
        for recipe in &recipes {
            let what = format!("{} {}", recipe["recipe"], recipe["part"]);
            assert_eq!(Value::from(reference_hash(&recipe["settings"])), recipe["hash"], "{what}");
        }
        let baseline = |part: usize, key: &str| match key {
            "fn" => recipes[part]["settings"]["fn"].clone(),
            _ => recipes[part]["hash"].clone(),
        };
        let key = json!({
            "dataset_fn": baseline(0, "fn"), "dataset_hash": baseline(0, "hash"),
            "model_fn": baseline(1, "fn"), "model_hash": baseline(1, "hash"),
            "trainer_fn": baseline(2, "fn"), "trainer_hash": baseline(2, "hash"),
            "seed": 1000, "transfer_step": 0, "data_transfer": 0, "collapsed_history": "",
        });
        assert_eq!(reference_hash(&key), "56b9a07e44c1530407cde981b0c0b30b");
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.1, "0.1"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.0001, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e300, "1.25e+300"),
            (-3e-10, "-3e-10"),
        ] {
            assert_eq!(python_float(value), expected);
        }
    }
}
