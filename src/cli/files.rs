//! Where results go: folders, and tables as files.

use super::show::Show;
use crate::runs::{RunError, write_atomic};
use crate::table::{Format, Table};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A file that a table is written to, in the format of its extension.
#[derive(Debug, Clone)]
pub(crate) struct TableFile {
    path: PathBuf,
    format: Format,
}

impl FromStr for TableFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        Ok(Self { format: extension.parse()?, path })
    }
}

/// A folder of this machine: what is written goes nowhere else.
pub(crate) fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match crate::store::url_of(&path) {
        Some(_) => {
            Err("only shards are read from a URL; name a folder, and copy it with the store's own tool"
                .to_owned())
        }
        None => Ok(path),
    }
}

/// Makes the folders that results go to: better known before the work than after it.
pub(crate) fn make_folders(tables: &[TableFile], figures: Option<&Path>) -> Result<(), RunError> {
    let folders = tables.iter().filter_map(|file| file.path.parent()).chain(figures);
    for path in folders.filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(path).map_err(|source| RunError::Io {
            path: path.to_path_buf(),
            action: "create",
            source,
        })?;
    }
    Ok(())
}

/// Writes `table` to each of the files.
pub(crate) fn write_tables(files: &[TableFile], table: &Table, show: Show) -> anyhow::Result<()> {
    for TableFile { path, format } in files {
        write_atomic(path, &table.bytes(*format)?)?;
        show.line(&format!("scores written to {}", path.display()));
    }
    Ok(())
}
