//! Corruptions, severities and profiles in settings: by the names they have on the command line.

use super::{Profile, Severity};

/// All severities, if settings name none.
pub(crate) fn all_severities() -> Vec<Severity> {
    Severity::ALL.to_vec()
}

/// The parameters of ImageNet-C, if settings name none.
pub(crate) fn imagenet() -> Profile {
    Profile::ImageNet
}

/// A name in settings.
pub(crate) mod name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'d, T: FromStr<Err = String>, D: Deserializer<'d>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A list of names, or of numbers that are written as they are.
pub(crate) mod names {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Word {
        Number(u8),
        Name(String),
    }

    pub(crate) fn serialize<T: Display, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| {
            let text = value.to_string();
            text.parse().map_or(Word::Name(text), Word::Number)
        }))
    }

    pub(crate) fn deserialize<'d, T: FromStr<Err = String>, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let words = Vec::<Word>::deserialize(from)?.into_iter().map(|word| match word {
            Word::Number(number) => number.to_string(),
            Word::Name(name) => name,
        });
        words.map(|word| word.parse().map_err(D::Error::custom)).collect()
    }
}
