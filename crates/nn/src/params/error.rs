//! What can be wrong with weights.

/// What can be wrong with a set of weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// A tensor that the network needs is not there.
    #[error("{file}: lacks the tensor `{key}` of shape {shape:?}: is this file for another network?")]
    Missing {
        /// Which file.
        file: String,
        /// Official name.
        key: String,
        /// Official shape.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the network needs.
    #[error(
        "{file}: the tensor `{key}` has shape {found:?} where {expected:?} is needed: is this file for another size of the network?"
    )]
    Shape {
        /// Which file.
        file: String,
        /// Official name.
        key: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in numbers that no weights have, such as whole ones.
    #[error(
        "{file}: the tensor `{key}` is stored in numbers that are no weights: floating point of 16, 32 or 64 bits is needed"
    )]
    Numbers {
        /// Which file.
        file: String,
        /// Official name.
        key: String,
    },
    /// Tensors that the network has no place for.
    #[error("{file}: holds {} tensors that the network does not know, first `{}`: is this file for another network?", .names.len(), .names[0])]
    Unknown {
        /// Which file.
        file: String,
        /// The tensors.
        names: Vec<String>,
    },
    /// The file itself cannot be read.
    #[error("{file}: {reason}")]
    File {
        /// Which file.
        file: String,
        /// What is wrong and what may help.
        reason: String,
    },
}
