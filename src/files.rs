//! Files that are there whole or not at all, and as open to others as the process's mask says.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Makes temporary files and folders that are not for their owner alone, as those of the crate are: the mask of the
/// process takes from `mode`.
pub fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Replaces `path` in one step: readers see the old bytes or the new ones, also after a power cut.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A bare name's parent is empty.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = temporary(0o666).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}
