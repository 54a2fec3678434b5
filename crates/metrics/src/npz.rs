//! Arrays of NumPy's `.npy` (format of NEP 1) and `.npz`, a zip of these: here vectors and matrices of floats
//! alone.

use half::f16;
use std::io::{Read, Seek};

/// Shape and values in row-major order.
pub type Array = (Vec<usize>, Vec<f64>);

/// The values of `name` in row-major order, which must have this shape (dimensions of 1 count for nothing).
pub fn array<R: Read + Seek>(
    archive: &mut zip::ZipArchive<R>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f64>, String> {
    let (found, values) = any_array(archive, name)?;
    let long = |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|&n| n != 1).collect() };
    if long(&found) != long(shape) {
        return Err(format!("`{name}` has shape {found:?} where {shape:?} is needed"));
    }
    Ok(values)
}

/// The array `name`, whatever its shape.
pub fn any_array<R: Read + Seek>(archive: &mut zip::ZipArchive<R>, name: &str) -> Result<Array, String> {
    let mut bytes = Vec::new();
    let mut file = archive.by_name(&format!("{name}.npy")).map_err(|error| format!("`{name}`: {error}"))?;
    file.read_to_end(&mut bytes).map_err(|error| format!("`{name}`: {error}"))?;
    parse(&bytes).ok_or_else(|| format!("`{name}` is not a vector or matrix of floats"))
}

/// What a `.npy` file holds; nothing if that is no vector or matrix of floats.
pub fn parse(bytes: &[u8]) -> Option<Array> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    // Version 1 has two bytes for the header's length, later ones four.
    let (length, rest) = match *rest.first()? {
        1 => (usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)), rest.get(4..)?),
        _ => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, rest.get(6..)?),
    };
    let header = std::str::from_utf8(rest.get(..length)?).ok()?.replace(' ', "");
    let shape = header.split_once("'shape':(")?.1.split_once(')')?.0;
    let shape: Vec<usize> =
        shape.split(',').filter(|n| !n.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
    let descr = header.split_once("'descr':'")?.1.split_once('\'')?.0;
    let values = floats(descr, &rest[length..])?;
    let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n))?;
    if values.len() != count || shape.len() > 2 {
        return None;
    }
    // Where the value of each row-major place lies.
    let place = |i: usize| match shape[..] {
        [rows, columns] if header.contains("'fortran_order':True") => i / columns + i % columns * rows,
        _ => i,
    };
    let values = (0..count).map(|i| values[place(i)]).collect();
    Some((shape, values))
}

fn floats(descr: &str, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        let (values, odd) = bytes.as_chunks::<N>();
        odd.is_empty().then(|| values.iter().map(|bytes| value(*bytes)).collect())
    }
    match descr {
        "<f8" => each(bytes, f64::from_le_bytes),
        "<f4" => each(bytes, |bytes| f32::from_le_bytes(bytes).into()),
        "<f2" => each(bytes, |bytes| f16::from_le_bytes(bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, values: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(values);
        bytes
    }

    fn doubles(values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn arrays_of_floats_are_read_and_others_refused() {
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }\n";
        let whole = npy(header, &doubles(&[1.5, -2.0]));
        assert_eq!(parse(&whole), Some((vec![1, 2], vec![1.5, -2.0])));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
        for (from, to) in [
            ("<f8", "<f4"),
            ("<f8", "<i8"),
            ("<f8", ">f8"),
            ("(1, 2)", "(1, 3)"),
            ("(1, 2)", "(1, -2)"),
            ("(1, 2)", "(1, 1, 2)"),
        ] {
            assert_eq!(parse(&npy(&header.replace(from, to), &doubles(&[1.5, -2.0]))), None, "{to}");
        }
        let columns = header.replace("False", "True").replace("(1, 2)", "(2, 3)");
        let (_, rows) = parse(&npy(&columns, &doubles(&[0.0, 10.0, 1.0, 11.0, 2.0, 12.0]))).unwrap();
        assert_eq!(rows, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
        let singles: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(parse(&npy(&header.replace("<f8", "<f4"), &singles)), Some((vec![1, 2], vec![1.5, -2.0])));
        assert_eq!(
            parse(&npy(&header.replace("<f8", "<f2"), &[0x00, 0x3e, 0x00, 0xc0])),
            Some((vec![1, 2], vec![1.5, -2.0]))
        );
    }
}
