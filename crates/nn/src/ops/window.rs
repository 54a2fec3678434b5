//! Square windows of a picture, and the learned biases of relative places in them.

#[cfg(feature = "gpu")]
use super::gpu;
use burn::tensor::{Int, Tensor, TensorData};

/// The square windows of side `window` of `x[batch, rows, columns, channels]`, which starts anew at its edges, moved
/// down and right by `shift`: `[windows, window², channels]`.
pub fn windows(x: Tensor<4>, window: usize, shift: usize) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    let x = match gpu::windows(x, window, shift) {
        Ok(windows) => return windows,
        Err(x) => x,
    };
    let [batch, rows, columns, channels] = x.dims();
    let back = -(shift as i64);
    let x = if shift > 0 { x.roll(&[back, back], &[1, 2]) } else { x };
    let (down, across) = (rows / window, columns / window);
    x.reshape([batch, down, window, across, window, channels]).permute([0, 1, 3, 2, 4, 5]).reshape([
        batch * down * across,
        window * window,
        channels,
    ])
}

/// The inverse of [`windows`], for pictures of this size: batch, rows, columns.
pub fn from_windows(x: Tensor<3>, size: [usize; 3], window: usize, shift: usize) -> Tensor<4> {
    #[cfg(feature = "gpu")]
    let x = match gpu::from_windows(x, size, window, shift) {
        Ok(whole) => return whole,
        Err(x) => x,
    };
    let [batch, rows, columns] = size;
    let channels = x.dims()[2];
    let x = x
        .reshape([batch, rows / window, columns / window, window, window, channels])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([batch, rows, columns, channels]);
    let ahead = shift as i64;
    if shift > 0 { x.roll(&[ahead, ahead], &[1, 2]) } else { x }
}

/// The learned biases `table[(2·window - 1)², heads]` for each pair of tokens of a window: `[heads, tokens, tokens]`.
pub fn relative_bias(table: Tensor<2>, window: usize) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    let table = match gpu::relative_bias(table, window) {
        Ok(bias) => return bias,
        Err(table) => table,
    };
    let tokens = window * window;
    let heads = table.dims()[1];
    let index = TensorData::new(relative_index(window), [tokens * tokens]);
    let index = Tensor::<1, Int>::from_data(index, &table.device());
    table.select(0, index).reshape([tokens, tokens, heads]).permute([2, 0, 1])
}

/// For each pair of tokens of a window the row of the table of [`relative_bias`].
pub fn relative_index(window: usize) -> Vec<i64> {
    let side = 2 * window - 1;
    let tokens = window * window;
    let mut index = Vec::with_capacity(tokens * tokens);
    for p in 0..tokens {
        for q in 0..tokens {
            let dy = p / window + window - 1 - q / window;
            let dx = p % window + window - 1 - q % window;
            index.push((dy * side + dx) as i64);
        }
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relative_index_has_its_known_corners() {
        let index = relative_index(8);
        assert_eq!(index[0], 7 * 15 + 7);
        assert_eq!(index[63], 0);
        assert_eq!(index[63 * 64], 14 * 15 + 14);
    }
}
