//! Lists in Parquet: of a table with any columns only those of paths and captions are read.

use super::error::DataError;
use super::sources::Columns;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The rows of a table as objects with the columns that are wanted and there, texts only.
pub(super) fn rows(table: &Path, columns: &Columns) -> Result<Vec<Value>, DataError> {
    let file =
        File::open(table).map_err(|source| DataError::Folder { folder: table.to_path_buf(), source })?;
    let damaged = |error: ParquetError| match error {
        ParquetError::NYI(reason) => DataError::Unsupported { file: table.to_path_buf(), reason },
        error => DataError::Damaged { file: table.to_path_buf(), reason: error.to_string() },
    };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let schema = reader.metadata().file_metadata().schema();
    if !schema.get_fields().iter().any(|column| column.name() == columns.picture) {
        let names: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).collect();
        let reason = format!("has no column \"{}\" of pictures, but {}", columns.picture, names.join(", "));
        return Err(DataError::Line { list: table.to_path_buf(), line: 1, reason });
    }
    let is_wanted = |column: &&Arc<Type>| columns.names().any(|name| name == column.name());
    let wanted = schema.get_fields().iter().filter(is_wanted).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(damaged)?;
    let mut objects = Vec::new();
    for row in reader.get_row_iter(Some(projection)).map_err(damaged)? {
        let texts =
            row.map_err(damaged)?.into_columns().into_iter().filter_map(|(name, field)| match field {
                Field::Str(text) => Some((name, Value::String(text))),
                // Some writers do not say that bytes are a text.
                Field::Bytes(bytes) => Some((name, Value::String(bytes.as_utf8().ok()?.to_string()))),
                _ => None,
            });
        objects.push(Value::Object(Map::from_iter(texts)));
    }
    Ok(objects)
}
