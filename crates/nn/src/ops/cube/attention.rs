//! Attention.

use super::product::multiply;
use super::{UNITS, element, empty, flash, grid, widest};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::attention::{AttentionStrategy, attention as burn_attention};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Width of a head up to which the kernels that store no scores keep it in fast memory.
const MOST_WIDTH: usize = 128;

/// Bytes that stored scores may take in f32.
const MOST_SCORES: usize = 1 << 30;

/// Attention of `q[batch, heads, n, d]` to `k` and `v`, `[batch, heads, m, d]`, without stored scores where the card has
/// a kernel for that.
pub(super) fn attention(q: CubeTensor, k: CubeTensor, v: CubeTensor) -> CubeTensor {
    if let Some(y) = flash::attention(&q, &k, &v) {
        return y;
    }
    let [batch, heads, queries, width] = sizes(&q);
    let a_query = batch * heads * sizes(&k)[2] * size_of::<f32>();
    if a_query * queries <= MOST_SCORES {
        return stored(q, k, v, None);
    }
    // The library's multiplies without matrix units, but stores nothing either.
    if q.dtype == DType::F32 && width <= MOST_WIDTH {
        let (q, k, v) = (q.clone(), k.clone(), v.clone());
        let options = AttentionModuleOptions::default();
        if let Ok(y) = burn_attention(q, k, v, None, None, options, AttentionStrategy::FlashUnit) {
            return y;
        }
    }
    let at_once = (MOST_SCORES / a_query).max(1);
    let parts = (0..queries).step_by(at_once).map(|start| {
        let rows = Slice::from(start..(start + at_once).min(queries));
        let part = CubeBackend::float_slice(q.clone(), &[Slice::full(), Slice::full(), rows]);
        stored(part, k.clone(), v.clone(), None)
    });
    CubeBackend::float_cat(parts.collect(), 2)
}

/// The same with `bias[batch or 1, heads or 1, n, m]` in f32 added to the scores.
pub(super) fn attention_biased(q: CubeTensor, k: CubeTensor, v: CubeTensor, bias: CubeTensor) -> CubeTensor {
    stored(q, k, v, Some(bias))
}

/// As [`super::super::attention_of_parts`].
pub(super) fn of_parts(x: CubeTensor, bias: CubeTensor, heads: usize) -> CubeTensor {
    let x = into_contiguous(x);
    let shape = x.meta.shape();
    let (n, tokens, channels) = (shape[0], shape[1], shape[2] / 3);
    let width = channels / heads;
    let part = |_| empty(&x, Shape::from([n, heads, tokens, width]), x.dtype);
    let [q, k, v] = [0, 1, 2].map(part);
    let vector = widest(width);
    let launch = |vectors: usize| grid(vectors.div_ceil(UNITS as usize));
    let vectors = n * tokens * channels / vector;
    let numbers = element(x.dtype);
    parted_heads::launch(
        &x.client,
        launch(vectors),
        CubeDim::new_1d(UNITS),
        vector,
        x.clone().into_buffer_arg(),
        q.clone().into_buffer_arg(),
        k.clone().into_buffer_arg(),
        v.clone().into_buffer_arg(),
        tokens,
        (width as f32).powf(-0.5),
        heads,
        width / vector,
        numbers,
    );
    let y = of_scaled(q, k, v, Some(bias));
    let joined = empty(&x, Shape::from([n, tokens, channels]), x.dtype);
    joined_heads::launch(
        &x.client,
        launch(vectors),
        CubeDim::new_1d(UNITS),
        vector,
        y.into_buffer_arg(),
        joined.clone().into_buffer_arg(),
        tokens,
        heads,
        width / vector,
        numbers,
    );
    joined
}

/// `x[n, tokens, 3, heads, lanes]` as `q`, multiplied by `scale`, `k` and `v`, each `[n, heads, tokens, lanes]`. A unit
/// for each vector of one of them.
#[cube(launch)]
fn parted_heads<F: Float, N: Size>(
    x: &[Vector<F, N>],
    q: &mut [Vector<F, N>],
    k: &mut [Vector<F, N>],
    v: &mut [Vector<F, N>],
    tokens: usize,
    scale: f32,
    #[comptime] heads: usize,
    #[comptime] lanes: usize,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= q.len() {
        terminate!();
    }
    let lane = at % lanes;
    let token = at / lanes % tokens;
    let head = at / (lanes * tokens) % heads;
    let n = at / (lanes * tokens * heads);
    let from = ((n * tokens + token) * 3 * heads + head) * lanes + lane;
    let scaled = Vector::<f32, N>::cast_from(x[from]) * Vector::new(scale);
    q[at] = Vector::cast_from(scaled);
    k[at] = x[from + heads * lanes];
    v[at] = x[from + 2 * heads * lanes];
}

/// `x[n, heads, tokens, lanes]` as `y[n, tokens, heads, lanes]`. A unit for each vector.
#[cube(launch)]
fn joined_heads<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    tokens: usize,
    #[comptime] heads: usize,
    #[comptime] lanes: usize,
    #[define(F)] _numbers: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= x.len() {
        terminate!();
    }
    let lane = at % lanes;
    let token = at / lanes % tokens;
    let head = at / (lanes * tokens) % heads;
    let n = at / (lanes * tokens * heads);
    y[((n * tokens + token) * heads + head) * lanes + lane] = x[at];
}

fn sizes(x: &CubeTensor) -> [usize; 4] {
    let shape = x.meta.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

/// Attention by way of the scores.
fn stored(q: CubeTensor, k: CubeTensor, v: CubeTensor, bias: Option<CubeTensor>) -> CubeTensor {
    // Before the product, where 16 bits could overflow.
    let scale = (sizes(&q)[3] as f32).powf(-0.5);
    of_scaled(CubeBackend::float_mul_scalar(q, scale.into()), k, v, bias)
}

/// The same for queries that are scaled already.
fn of_scaled(q: CubeTensor, k: CubeTensor, v: CubeTensor, bias: Option<CubeTensor>) -> CubeTensor {
    let mut k = into_contiguous(k);
    k.meta.swap(2, 3);
    let shares = softmax(multiply(into_contiguous(q), k), bias);
    multiply(shares, into_contiguous(v))
}

/// The softmax of each row of `scores[batch, heads, queries, keys]`, `bias[batch or 1, heads or 1, queries, keys]` in f32
/// added before if there is one.
pub(super) fn softmax(scores: CubeTensor, bias: Option<CubeTensor>) -> CubeTensor {
    let [batch, heads, queries, keys] = sizes(&scores);
    let shares = empty(&scores, scores.meta.shape().clone(), scores.dtype);
    let rows = batch * heads * queries;
    let biased = bias.is_some();
    let bias = into_contiguous(bias.unwrap_or_else(|| empty(&scores, Shape::from([1, 1, 1, 4]), DType::F32)));
    let [bias_batches, bias_heads, _, _] = sizes(&bias);
    let numbers = element(scores.dtype);
    let vector = widest(keys).min(4);
    softmax_rows::launch(
        &scores.client,
        grid(rows),
        CubeDim::new_1d(ROW_UNITS),
        vector,
        scores.clone().into_buffer_arg(),
        bias.into_buffer_arg(),
        shares.clone().into_buffer_arg(),
        rows,
        keys / vector,
        queries,
        heads,
        bias_batches,
        bias_heads,
        vector,
        biased,
        numbers,
    );
    shares
}

/// Units of a cube that works on one row.
pub(super) const ROW_UNITS: u32 = 64;

/// The softmax of each row of `x[batch, heads, queries, lanes]`, `bias[bias_batches, bias_heads, queries, lanes]` added
/// before if `biased`, in vectors. A cube for each row.
#[cube(launch)]
fn softmax_rows<F: Float, N: Size>(
    x: &[Vector<F, N>],
    bias: &[Vector<f32, N>],
    y: &mut [Vector<F, N>],
    rows: usize,
    lanes: usize,
    queries: usize,
    heads: usize,
    bias_batches: usize,
    bias_heads: usize,
    #[comptime] vector: usize,
    #[comptime] biased: bool,
    #[define(F)] _numbers: ElemType,
) {
    let mut shared = Shared::new_slice(comptime!(ROW_UNITS as usize));
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let start = row * lanes;
    let query = row % queries;
    let head = row / queries % heads % bias_heads;
    let batch = row / (queries * heads) % bias_batches;
    let bias_start = ((batch * bias_heads + head) * queries + query) * lanes;
    let mut largest_of = Vector::<f32, N>::new(f32::MIN);
    let mut lane = UNIT_POS as usize;
    while lane < lanes {
        let mut value = Vector::<f32, N>::cast_from(x[start + lane]);
        if comptime!(biased) {
            value += bias[bias_start + lane];
        }
        largest_of = max(largest_of, value);
        lane += CUBE_DIM as usize;
    }
    let mut largest = largest_of.extract(0usize);
    #[unroll]
    for index in 1..vector {
        largest = max(largest, largest_of.extract(index));
    }
    shared[unit] = largest;
    sync_cube();
    for other in 0..comptime!(ROW_UNITS as usize) {
        largest = max(largest, shared[other]);
    }
    sync_cube();
    let most = Vector::<f32, N>::new(largest);
    let mut sum_of = Vector::<f32, N>::new(0.0);
    lane = UNIT_POS as usize;
    while lane < lanes {
        let mut value = Vector::<f32, N>::cast_from(x[start + lane]);
        if comptime!(biased) {
            value += bias[bias_start + lane];
        }
        sum_of += (value - most).exp();
        lane += CUBE_DIM as usize;
    }
    let mut sum = sum_of.extract(0usize);
    #[unroll]
    for index in 1..vector {
        sum += sum_of.extract(index);
    }
    shared[unit] = sum;
    sync_cube();
    sum = shared[0];
    for other in 1..comptime!(ROW_UNITS as usize) {
        sum += shared[other];
    }
    let share = Vector::<f32, N>::new(1.0 / sum);
    lane = UNIT_POS as usize;
    while lane < lanes {
        let mut value = Vector::<f32, N>::cast_from(x[start + lane]);
        if comptime!(biased) {
            value += bias[bias_start + lane];
        }
        y[start + lane] = Vector::cast_from((value - most).exp() * share);
        lane += CUBE_DIM as usize;
    }
}
