//! Reading files that a configuration names: bounded in size, never a device or a pipe.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// Why a file cannot be used. The message follows the file's name: "cannot be read: …".
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system's error.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A directory, a device, a socket or a pipe. Reading a pipe could block for ever, and would
    /// work only once.
    #[error("is not a regular file")]
    NotRegular,
    /// More than the allowed number of bytes, in KiB.
    #[error("is larger than {0} KiB")]
    TooLarge(u64),
    /// Text in UTF-16, as some editors save it.
    #[error("is UTF-16: save it as UTF-8")]
    Utf16,
    /// A byte order mark, which would become a part of the content.
    #[error("begins with a byte order mark: save it as UTF-8 without one")]
    ByteOrderMark,
}

/// Reads a text or binary file of at most `max_bytes`. The content may be a secret, so it is wiped
/// on drop.
///
/// # Errors
/// If it cannot be read, is not a regular file, is too large, or begins with a byte order mark.
pub fn read(path: &Path, max_bytes: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Before opening it: opening a pipe waits for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(FileError::NotRegular);
    }
    read_all(file, max_bytes)
}

/// As [`read`], but also from pipes, for files that are named on the command line and read once.
///
/// # Errors
/// As for [`read`].
pub fn read_once(path: &Path, max_bytes: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_all(File::open(path)?, max_bytes)
}

fn read_all(file: File, max_bytes: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let size = file.metadata()?.len().min(max_bytes);
    // Large enough for a regular file, because growing would leave a copy behind that is not wiped.
    let mut content = Zeroizing::new(Vec::with_capacity(
        usize::try_from(size).unwrap_or_default() + 1,
    ));
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        return Err(FileError::TooLarge(max_bytes / 1024));
    }
    match content.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(FileError::Utf16),
        [0xef, 0xbb, 0xbf, ..] => Err(FileError::ByteOrderMark),
        _ => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_limited_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(matches!(read(&path, 4), Err(FileError::Io(_))));
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read(&path, 4).unwrap().as_slice(), b"four");
        assert!(matches!(read(&path, 3), Err(FileError::TooLarge(0))));
        assert!(matches!(read(folder.path(), 4), Err(FileError::NotRegular)));
        assert!(matches!(
            read(Path::new("/dev/zero"), 4),
            Err(FileError::NotRegular)
        ));
    }

    #[test]
    fn byte_order_marks_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"\xef\xbb\xbftext").unwrap();
        assert!(matches!(read(&path, 64), Err(FileError::ByteOrderMark)));
        for utf16 in [b"\xff\xfet\0", b"\xfe\xff\0t"] {
            std::fs::write(&path, utf16).unwrap();
            assert!(matches!(read(&path, 64), Err(FileError::Utf16)));
        }
    }
}
