//! The index of a file: safetensors, and PyTorch's formats.

use super::{Checkpoint, Read, Stored, WatchRead};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, SafeTensors};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use zip::ZipArchive;
use zip::result::ZipError;

/// Largest index of a safetensors file that is believed, bytes (the format's own limit).
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The number formats whose values are weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Float {
    /// IEEE half.
    F16,
    /// The upper half of [`Float::F32`].
    Bf16,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
}

impl Float {
    /// Little-endian bytes as f32.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&b| value(b)).collect()
        }
        match self {
            Float::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Float::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Float::F32 => each(bytes, f32::from_le_bytes),
            Float::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// Integers are only ever buffers, which networks compute for themselves.
    fn of_safetensors(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::F32 => Self::F32,
            Dtype::F64 => Self::F64,
            _ => return None,
        })
    }

    fn of_pytorch(dtype: pytorch_reader::DType) -> Option<Self> {
        Some(match dtype {
            pytorch_reader::DType::F16 => Self::F16,
            pytorch_reader::DType::BF16 => Self::Bf16,
            pytorch_reader::DType::F32 => Self::F32,
            pytorch_reader::DType::F64 => Self::F64,
            _ => return None,
        })
    }
}

/// Opens a file; an error says what is wrong with it and what may help.
pub(super) fn open(path: &Path) -> Result<Checkpoint, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let mut start = Vec::new();
    file.by_ref().take(9).read_to_end(&mut start).map_err(unreadable)?;
    let checkpoint = match start[..] {
        [a, b, c, d, e, f, g, h, b'{'] => {
            safetensors_file(file, u64::from_le_bytes([a, b, c, d, e, f, g, h]))?
        }
        _ => pytorch(path)?,
    };
    Ok(unwrapped(checkpoint))
}

/// Safetensors in memory.
pub(super) fn safetensors_in_memory(bytes: &'static [u8]) -> Result<Checkpoint, String> {
    let (header_bytes, _) = SafeTensors::read_metadata(bytes).map_err(not_whole)?;
    let (header, data) = bytes[8..].split_at(header_bytes);
    safetensors(header, data.len() as u64, |start, end| {
        let tensor = &data[start..end];
        Arc::new(move || Ok(Cow::Borrowed(tensor)))
    })
}

fn safetensors_file(mut file: File, header_bytes: u64) -> Result<Checkpoint, String> {
    let length = file.metadata().map_err(not_whole)?.len();
    if header_bytes > MAX_HEADER_BYTES.min(length) {
        return Err(not_whole("its index is longer than the file"));
    }
    let mut header = vec![0; header_bytes as usize];
    file.seek(SeekFrom::Start(8)).and_then(|_| file.read_exact(&mut header)).map_err(not_whole)?;
    let first = 8 + header_bytes;
    let file = Arc::new(Mutex::new(file));
    safetensors(&header, length - first, |start, end| {
        let file = file.clone();
        Arc::new(move || {
            let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            file.seek(SeekFrom::Start(first + start as u64))?;
            let mut bytes = vec![0; end - start];
            file.read_exact(&mut bytes)?;
            Ok(Cow::Owned(bytes))
        })
    })
}

fn safetensors(
    header: &[u8],
    data_bytes: u64,
    read: impl Fn(usize, usize) -> Read,
) -> Result<Checkpoint, String> {
    let metadata: Metadata = serde_json::from_slice(header).map_err(not_whole)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        if end as u64 > data_bytes {
            return Err(not_whole("its end is missing"));
        }
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, side| bits.checked_mul(*side));
        if bits.is_none_or(|bits| bits.div_ceil(8) != end.saturating_sub(start)) {
            return Err(not_whole(format!("`{name}` has another length than its shape says")));
        }
        let format = Float::of_safetensors(info.dtype);
        tensors.insert(name, Stored { shape: info.shape.clone(), format, read: read(start, end), own: None });
    }
    let metadata = metadata.metadata().clone().unwrap_or_default();
    Ok(Checkpoint { tensors, metadata, ..Default::default() })
}

fn not_whole(reason: impl std::fmt::Display) -> String {
    format!("is not a whole safetensors file ({reason}): get it again")
}

fn pytorch(path: &Path) -> Result<Checkpoint, String> {
    let reader = pytorch_reader::PytorchReader::new(path)
        .map_err(|error| format!("is neither safetensors nor a whole PyTorch checkpoint ({error})"))?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in reader.into_tensors() {
        let format = Float::of_pytorch(tensor.dtype());
        let (_, _, shape, read) = tensor.into_parts();
        let read: Read = Arc::new(move || read().map(Cow::Owned));
        tensors.insert(name, Stored { shape, format, read, own: None });
    }
    Ok(Checkpoint { tensors, ..Default::default() })
}

/// See [`super::check_sums`].
pub(super) fn check_sums(path: &Path, watch: &mut WatchRead) -> Result<ControlFlow<()>, String> {
    let Ok(mut archive) = File::open(path).map_err(ZipError::from).and_then(ZipArchive::new) else {
        return Ok(ControlFlow::Continue(()));
    };
    // As PyTorch writes it where it is told to compute none.
    if (0..archive.len()).all(|index| archive.by_index_raw(index).is_ok_and(|member| member.crc32() == 0)) {
        return Ok(ControlFlow::Continue(()));
    }
    let (mut done, mut buffer) = (0, vec![0; 1 << 20]);
    for index in 0..archive.len() {
        let damaged = |error: &dyn std::fmt::Display| format!("is damaged ({error}): get it again");
        let mut member = archive.by_index(index).map_err(|error| damaged(&error))?;
        loop {
            let count = member.read(&mut buffer).map_err(|error| damaged(&error))?;
            if count == 0 {
                break;
            }
            done += count as u64;
            if watch(done).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The weights of a file that keeps them below a name, as training programs do (reference 6).
fn unwrapped(mut checkpoint: Checkpoint) -> Checkpoint {
    for nest in ["state_dict", "params_ema", "params"] {
        let inner = checkpoint.part(nest);
        if !inner.tensors.is_empty() {
            let mut extras: Vec<String> = checkpoint
                .tensors
                .keys()
                .filter_map(|name| name.split('.').next().filter(|place| *place != nest).map(str::to_string))
                .collect();
            extras.dedup();
            checkpoint = Checkpoint { extras, ..inner };
            break;
        }
    }
    // As programs for several cards name the networks that they wrap.
    let bare = checkpoint.renamed(|name, shape| {
        let bare = name.strip_prefix("module.").filter(|bare| !checkpoint.contains(bare));
        Some((bare.unwrap_or(name).into(), shape.to_vec()))
    });
    Checkpoint { tensors: bare.tensors, ..checkpoint }
}
