//! Writing PyTorch's zip format: `data.pkl`, a pickle of an `OrderedDict` of tensors, and each tensor's values in a
//! file of their own. Only what `torch.load(weights_only=True)` takes is in the pickle.

use super::Checkpoint;
use std::io::{self, Write};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, result::ZipError};

/// A number format of values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Storage {
    Float,
    Long,
}

impl Storage {
    /// Indices are whole numbers, as the networks that use them want.
    fn of(name: &str) -> Self {
        let integer = ["relative_position_index", "position_ids", "num_batches_tracked"];
        if integer.iter().any(|end| name.ends_with(end)) { Self::Long } else { Self::Float }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Float => "FloatStorage",
            Self::Long => "LongStorage",
        }
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Float => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Long => values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect(),
        }
    }
}

impl Checkpoint {
    /// Writes the tensors, in f32, as `torch.save(state_dict)` does; below `nest` where it is given.
    pub fn write_pytorch(&self, nest: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
        let mut zip = ZipWriter::new_stream(out);
        let mut file = |name: &str, bytes: &[u8]| -> io::Result<()> {
            // Whole models are larger than four gigabytes.
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
            let other = |error: ZipError| io::Error::other(error);
            zip.start_file(format!("archive/{name}"), options).map_err(other)?;
            zip.write_all(bytes)
        };
        file("data.pkl", &self.pickle(nest))?;
        file("byteorder", b"little")?;
        for (index, (name, stored, format)) in self.weights().enumerate() {
            let values = format.decode(&(stored.read)()?);
            file(&format!("data/{index}"), &Storage::of(name).bytes(&values))?;
        }
        file("version", b"3\n")?;
        zip.finish().map_err(io::Error::other)?;
        Ok(())
    }

    fn pickle(&self, nest: Option<&str>) -> Vec<u8> {
        let mut pickle = Pickle(vec![0x80, 2]);
        if let Some(nest) = nest {
            pickle.0.push(b'}');
            pickle.text(nest);
        }
        pickle.ordered_dict();
        pickle.0.push(b'(');
        for (index, (name, stored, _)) in self.weights().enumerate() {
            pickle.text(name);
            pickle.tensor(index, Storage::of(name), &stored.shape);
        }
        pickle.0.push(b'u');
        if nest.is_some() {
            pickle.0.push(b's');
        }
        pickle.0.push(b'.');
        pickle.0
    }
}

/// Opcodes of pickle protocol 2, in the order of their making.
struct Pickle(Vec<u8>);

impl Pickle {
    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").as_bytes());
    }

    /// As a long, which has no largest value.
    fn number(&mut self, number: usize) {
        let bytes = (number as u64).to_le_bytes();
        // The last bit is the sign.
        self.0.extend([0x8a, 9]);
        self.0.extend(bytes);
        self.0.push(0);
    }

    fn numbers(&mut self, numbers: &[usize]) {
        self.0.push(b'(');
        numbers.iter().for_each(|&number| self.number(number));
        self.0.push(b't');
    }

    /// An empty one.
    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn tensor(&mut self, index: usize, storage: Storage, shape: &[usize]) {
        let count = shape.iter().product();
        let mut strides = vec![1; shape.len()];
        for d in (1..shape.len()).rev() {
            strides[d - 1] = strides[d] * shape[d];
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.extend(b"((");
        self.text("storage");
        self.global("torch", storage.class());
        self.text(&index.to_string());
        self.text("cpu");
        self.number(count);
        self.0.extend(b"tQ");
        self.number(0);
        self.numbers(shape);
        self.numbers(&strides);
        self.0.push(0x89);
        self.ordered_dict();
        self.0.extend(b"tR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_written_is_read_again() {
        let tensors = BTreeMap::from([
            ("a.weight".to_string(), TensorData::new(vec![1.0f32, -2.5, 0.125, 3e4, 5.0, 6.0], [2, 3])),
            ("b.scale".to_string(), TensorData::new(vec![0.5f32], [0usize; 0])),
            ("c.relative_position_index".to_string(), TensorData::new(vec![3.0f32, 7.0], [2])),
        ]);
        let folder = tempfile::TempDir::new().unwrap();
        for nest in [None, Some("state_dict")] {
            let mut bytes = Vec::new();
            Checkpoint::from_tensors(tensors.clone()).write_pytorch(nest, &mut bytes).unwrap();
            let path = folder.path().join("weights.pt");
            std::fs::write(&path, bytes).unwrap();
            let read = Checkpoint::open(&path).unwrap();
            let (shape, values) = read.get("a.weight").unwrap().unwrap();
            assert_eq!((shape, values), (vec![2, 3], vec![1.0, -2.5, 0.125, 3e4, 5.0, 6.0]));
            assert_eq!(read.get("b.scale").unwrap().unwrap(), (vec![], vec![0.5]));
            // Whole numbers are known and no weights.
            assert!(read.contains("c.relative_position_index"));
            assert_eq!(read.get("c.relative_position_index").unwrap(), None);
        }
    }
}
