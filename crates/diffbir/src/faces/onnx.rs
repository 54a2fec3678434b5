//! The weights of convolutions in an ONNX file.

use burn::tensor::TensorData;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Numbers of fields in ONNX's protocol buffers.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_TENSOR: u64 = 5;
    pub const NODE_INPUT: u64 = 1;
    pub const NODE_KIND: u64 = 4;
    pub const TENSOR_SIDE: u64 = 1;
    pub const TENSOR_TYPE: u64 = 2;
    pub const TENSOR_NAME: u64 = 8;
    pub const TENSOR_BYTES: u64 = 9;
}

/// Single precision, as ONNX numbers its types.
const FLOAT: u64 = 1;

/// The weight and bias of each convolution, as `0.weight`, `0.bias` and so on in the order of the graph: exporters name
/// them by numbers of their own.
pub(super) fn convolutions(path: &Path) -> Result<Checkpoint, WeightError> {
    let file = || path.display().to_string();
    let failed = |reason: String| WeightError::File { file: file(), reason };
    let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let tensors = tensors(&bytes).ok_or_else(|| failed("is not a whole ONNX file: get it again".into()))?;
    Ok(Checkpoint::from_tensors(tensors).named(&file()))
}

fn tensors(bytes: &[u8]) -> Option<BTreeMap<String, TensorData>> {
    let graph = fields(bytes)?.into_iter().find(|(number, _)| *number == field::MODEL_GRAPH)?.1.bytes()?;
    let (mut found, mut convolutions) = (HashMap::new(), Vec::new());
    for (number, value) in fields(graph)? {
        match number {
            field::GRAPH_TENSOR => {
                if let Some((name, tensor)) = tensor(value.bytes()?)? {
                    found.insert(name, tensor);
                }
            }
            field::GRAPH_NODE => {
                let node = fields(value.bytes()?)?;
                let all = |wanted| node.iter().filter(move |(number, _)| *number == wanted);
                let is_convolution = all(field::NODE_KIND).any(|(_, kind)| kind.bytes() == Some(b"Conv"));
                if is_convolution {
                    let inputs = all(field::NODE_INPUT).filter_map(|(_, name)| name.bytes());
                    convolutions.push(inputs.skip(1).collect::<Vec<_>>());
                }
            }
            _ => {}
        }
    }
    let mut tensors = BTreeMap::new();
    for (index, inputs) in convolutions.into_iter().enumerate() {
        for (name, input) in ["weight", "bias"].into_iter().zip(inputs) {
            tensors.insert(format!("{index}.{name}"), found.get(input)?.clone());
        }
    }
    Some(tensors)
}

/// A tensor of floats and its name; nothing for one of another type, `None` outside for what is no tensor.
#[allow(clippy::type_complexity, reason = "a name and a tensor")]
fn tensor(bytes: &[u8]) -> Option<Option<(&[u8], TensorData)>> {
    let (mut shape, mut name, mut values, mut kind) = (Vec::new(), None, None, 0);
    for (number, value) in fields(bytes)? {
        match (number, value) {
            (field::TENSOR_SIDE, Value::Number(side)) => shape.push(usize::try_from(side).ok()?),
            (field::TENSOR_TYPE, Value::Number(number)) => kind = number,
            (field::TENSOR_NAME, Value::Bytes(bytes)) => name = Some(bytes),
            (field::TENSOR_BYTES, Value::Bytes(bytes)) => values = Some(bytes),
            _ => {}
        }
    }
    let (Some(name), Some(values), FLOAT) = (name, values, kind) else { return Some(None) };
    let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side))?;
    (count == values.len()).then(|| Some((name, TensorData::new(values, shape))))
}

/// A value of a protocol buffer.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that nothing here has.
    Other,
}

impl<'a> Value<'a> {
    fn bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// Numbers and values of the fields of a message, if it is whole.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = number(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(number(&mut bytes)?),
            1 => take(&mut bytes, 8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(number(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Seven bits a byte, the lowest first, the highest bit of each saying that more follow.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(bytes, 1)? else { return None };
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, bytes: &[u8]) -> Vec<u8> {
        [&[(number << 3 | 2) as u8, bytes.len() as u8], bytes].concat()
    }

    /// A convolution whose weight is a single number.
    fn file() -> Vec<u8> {
        let node = [message(1, b"in"), message(1, b"77"), message(4, b"Conv")].concat();
        let tensor = [vec![8, 1, 8, 1, 16, 1], message(8, b"77"), message(9, &2.5f32.to_le_bytes())].concat();
        message(7, &[message(1, &node), message(5, &tensor)].concat())
    }

    #[test]
    fn convolutions_are_numbered_in_the_order_of_the_graph() {
        let found = tensors(&file()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["0.weight"]);
        let weight = &found["0.weight"];
        assert_eq!(
            (weight.shape().to_vec(), weight.iter::<f32>().collect::<Vec<_>>()),
            (vec![1, 1], vec![2.5])
        );
    }

    #[test]
    fn files_that_end_early_or_are_something_else_are_no_onnx() {
        let whole = file();
        for end in 0..whole.len() {
            assert!(tensors(&whole[..end]).is_none(), "{end}");
        }
        assert!(tensors(b"\x89PNG\r\n\x1a\n").is_none());
        // A length beyond all memory.
        assert!(tensors(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_none());
    }
}
