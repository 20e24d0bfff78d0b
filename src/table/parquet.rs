//! A table as Parquet: one group of rows, every column optional, compressed with Snappy.

use super::{Kind, Table};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::Value;
use std::sync::Arc;

pub(super) fn bytes(table: &Table) -> Result<Vec<u8>> {
    let fields = table.columns.iter().map(|(name, kind)| Ok(Arc::new(field(name, *kind)?)));
    let schema = Type::group_type_builder("table").with_fields(fields.collect::<Result<_>>()?).build()?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    if !table.rows.is_empty() {
        let mut group = writer.next_row_group()?;
        for (i, (_, kind)) in table.columns.iter().enumerate() {
            let cells = table.rows.iter().map(|row| &row[i]);
            match kind {
                Kind::Text => {
                    column::<ByteArrayType>(&mut group, cells, |v| v.as_str().map(ByteArray::from))?;
                }
                Kind::Real => column::<DoubleType>(&mut group, cells, Value::as_f64)?,
                // The bits of an unsigned number: the type of the column says so.
                Kind::Whole => column::<Int64Type>(&mut group, cells, |v| v.as_u64().map(|v| v as i64))?,
            }
        }
        group.close()?;
    }
    writer.into_inner()
}

fn field(name: &str, kind: Kind) -> Result<Type> {
    let (physical, logical) = match kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Real => (Physical::DOUBLE, None),
        Kind::Whole => (Physical::INT64, Some(LogicalType::integer(64, false))),
    };
    Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
}

fn column<'a, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    cells: impl Iterator<Item = &'a Value>,
    of: impl Fn(&Value) -> Option<T::T>,
) -> Result<()> {
    let cells: Vec<Option<T::T>> = cells.map(of).collect();
    let defined: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    column.typed::<T>().write_batch(&values, Some(&defined), None)?;
    column.close()
}
