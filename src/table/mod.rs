//! Tables of named, typed columns, as CSV, JSON lines and Parquet.
//!
//! What is undefined is an empty cell in CSV, absent in JSON lines and null in Parquet. Absent: files.

mod parquet;

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::str::FromStr;

/// Errors of tables.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A row that does not fit the columns.
    #[error("table: {0}")]
    Row(String),
    /// Parquet refused.
    #[error("table: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Double-precision numbers.
    Real,
    /// Whole numbers from 0.
    Whole,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header (RFC 4180, but lines end as on Unix).
    Csv,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

impl FromStr for Format {
    type Err = String;

    /// By a file's extension.
    fn from_str(extension: &str) -> Result<Self, String> {
        match extension {
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::JsonLines),
            "parquet" => Ok(Self::Parquet),
            other => Err(format!("no table is written as {other:?}; name a file .csv, .jsonl or .parquet")),
        }
    }
}

/// Rows of typed cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<(Cow<'static, str>, Kind)>,
    /// Each as long as `columns`, and of their kinds or null.
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&'static str, Kind)]) -> Self {
        Self { columns: columns.iter().map(|&(name, kind)| (name.into(), kind)).collect(), rows: Vec::new() }
    }

    /// A table without rows, whose columns are only known now.
    pub fn named(columns: impl IntoIterator<Item = (String, Kind)>) -> Self {
        Self {
            columns: columns.into_iter().map(|(name, kind)| (name.into(), kind)).collect(),
            rows: Vec::new(),
        }
    }

    /// A table of JSON objects.
    pub fn of<'a>(
        columns: &[(&'static str, Kind)],
        rows: impl IntoIterator<Item = &'a Value>,
    ) -> Result<Self, TableError> {
        let mut table = Self::new(columns);
        rows.into_iter().try_for_each(|row| table.push(row))?;
        Ok(table)
    }

    /// Adds a JSON object. A key that is absent or null is undefined; one that no column has is an error, and so is a
    /// value of another type. Arrays become text.
    pub fn push(&mut self, row: &Value) -> Result<(), TableError> {
        let empty = Map::new();
        let object = row.as_object().unwrap_or(&empty);
        if let Some(key) = object.keys().find(|key| !self.columns.iter().any(|(name, _)| **name == **key)) {
            return Err(TableError::Row(format!("no column is called {key}")));
        }
        let cell = |(name, kind): &(Cow<'static, str>, Kind)| {
            let value = object.get(name.as_ref()).unwrap_or(&Value::Null);
            match (kind, value) {
                (_, Value::Null) | (Kind::Text, Value::String(_)) => Ok(value.clone()),
                (Kind::Text, Value::Array(_)) => Ok(Value::String(value.to_string())),
                (Kind::Real, Value::Number(_)) => Ok(value.as_f64().map_or(Value::Null, Value::from)),
                (Kind::Whole, Value::Number(n)) if n.is_u64() => Ok(value.clone()),
                _ => Err(TableError::Row(format!("{name} cannot be {value}"))),
            }
        };
        self.rows.push(self.columns.iter().map(cell).collect::<Result<_, _>>()?);
        Ok(())
    }

    /// Names of the columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_ref())
    }

    /// The rows, as many cells each as there are columns.
    pub fn rows(&self) -> impl Iterator<Item = &[Value]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// The table as the bytes of a file.
    pub fn bytes(&self, format: Format) -> Result<Vec<u8>, TableError> {
        Ok(match format {
            Format::Csv => self.csv().into_bytes(),
            Format::JsonLines => self.json_lines().into_bytes(),
            Format::Parquet => parquet::bytes(self)?,
        })
    }

    fn csv(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| csv_cell(name)).collect();
        let mut text = names.join(",") + "\n";
        for row in &self.rows {
            let cell = |value: &Value| match value {
                Value::Null => String::new(),
                Value::String(text) => csv_cell(text),
                value => value.to_string(),
            };
            text.push_str(&(row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"));
        }
        text
    }

    fn json_lines(&self) -> String {
        let line = |row: &Vec<Value>| {
            let cells = self.columns.iter().zip(row).filter(|(_, value)| !value.is_null());
            let object: Map<String, Value> =
                cells.map(|((name, _), value)| (name.to_string(), value.clone())).collect();
            format!("{}\n", Value::Object(object))
        };
        self.rows.iter().map(line).collect()
    }
}

/// A cell of text, quoted where it must be (RFC 4180).
pub(crate) fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use bytes::Bytes;
    use serde_json::json;

    const COLUMNS: [(&str, Kind); 4] =
        [("name", Kind::Text), ("n", Kind::Whole), ("value", Kind::Real), ("none", Kind::Text)];

    fn table() -> Table {
        let rows = [
            json!({"name": "a,\"b\"", "n": u64::MAX, "value": 1}),
            json!({"value": 0.1, "name": "µ\n"}),
            json!({"n": 0, "value": f64::NAN}),
        ];
        Table::of(&COLUMNS, &rows).unwrap()
    }

    #[test]
    fn text_formats_have_every_cell() {
        let csv = String::from_utf8(table().bytes(Format::Csv).unwrap()).unwrap();
        let expected = "name,n,value,none\n\"a,\"\"b\"\"\",18446744073709551615,1.0,\n\"µ\n\",,0.1,\n,0,,\n";
        assert_eq!(csv, expected);
        let lines = String::from_utf8(table().bytes(Format::JsonLines).unwrap()).unwrap();
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let first = json!({"name": "a,\"b\"", "n": u64::MAX, "value": 1.0});
        assert_eq!(lines, [first, json!({"name": "µ\n", "value": 0.1}), json!({"n": 0})]);
    }

    #[test]
    fn parquet_gives_back_types_and_cells() {
        let table = table();
        let reader = SerializedFileReader::new(Bytes::from(table.bytes(Format::Parquet).unwrap())).unwrap();
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|r| r.unwrap().to_string()).collect();
        assert_eq!(rows[0], "{name: \"a,\"b\"\", n: 18446744073709551615, value: 1.0, none: null}");
        assert_eq!(rows[1], "{name: \"µ\n\", n: null, value: 0.1, none: null}");
        assert_eq!(rows[2], "{name: null, n: 0, value: null, none: null}");
        let empty = Table::new(&COLUMNS).bytes(Format::Parquet).unwrap();
        let reader = SerializedFileReader::new(Bytes::from(empty)).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }

    #[test]
    fn rows_that_do_not_fit_are_errors() {
        for row in [json!({"other": 1}), json!({"n": -1}), json!({"value": "x"}), json!({"name": 1})] {
            assert!(Table::of(&COLUMNS, std::slice::from_ref(&row)).is_err(), "{row}");
        }
        assert!("xlsx".parse::<Format>().unwrap_err().contains(".parquet"));
    }
}
