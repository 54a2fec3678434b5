//! The text encoder against the reference's.

use crate::support::{Golden, filler, made};
use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_models::clip::{ClipText, ClipTextConfig};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build, keys_of};

/// Token ids by the formula, and last the empty prompt.
fn rows(count: usize) -> Tensor<2, Int> {
    let mut ids: Vec<i64> = filler(0, "in/clip", (count - 1) * 77)
        .into_iter()
        .map(|u| ((f64::from(u) + 1.0) / 2.0 * 49408.0) as i64)
        .collect();
    ids.extend([49406, 49407]);
    ids.resize(count * 77, 0);
    Tensor::from_data(TensorData::new(ids, [count, 77]), &Device::flex())
}

#[test]
fn the_text_encoder_is_the_references() {
    let golden = Golden::open("clip");
    golden.check_keys("clip", &keys_of(|params| ClipTextConfig::official().build(params)).unwrap());
    let config = ClipTextConfig { width: 64, heads: 4, ..ClipTextConfig::official() };
    let network: ClipText = made(|params| config.build(params));
    let check = |name: &str, got: Tensor<3>| {
        let values: Vec<f32> = got.clone().into_data().iter::<f32>().collect();
        golden.compare(name, &got.dims(), &values);
    };
    for block in [0, 11, 22] {
        let name = format!("model.transformer.resblocks.{block}");
        check(&name, network.hidden(rows(4), block + 1));
    }
    check("out", network.forward(rows(4)));
}

#[test]
fn a_file_may_hold_what_the_text_encoder_does_not_use() {
    let config = ClipTextConfig { vocabulary: 10, tokens: 5, width: 8, heads: 2, blocks: 3 };
    let (network, keys) =
        build(&mut RandomInit { seed: 1 }, &Device::flex(), |params| config.build(params)).unwrap();
    let tensors = keys.tensors(&network);
    assert_eq!((keys.entries().len(), tensors.len()), (42, 28));

    let mut without = Checkpoint::from_tensors(tensors.clone());
    let mut all = tensors;
    for entry in keys.entries() {
        let zeros = || TensorData::zeros::<f32, _>(entry.shape.clone());
        all.entry(entry.key.clone()).or_insert_with(zeros);
    }
    let mut with = Checkpoint::from_tensors(all.clone());
    all.insert("model.more".to_string(), TensorData::zeros::<f32, _>([1]));
    let mut with_more = Checkpoint::from_tensors(all);
    let ids = || Tensor::<2, Int>::from_ints([[1, 2, 3, 4, 9]], &Device::flex());
    for file in [&mut without, &mut with, &mut with_more] {
        let (again, _) = build(file, &Device::flex(), |params| config.build(params)).unwrap();
        assert_eq!(again.forward(ids()).into_data(), network.forward(ids()).into_data());
    }
    assert!(without.expect_all_used().is_ok() && with.expect_all_used().is_ok());
    assert!(with_more.expect_all_used().is_err());
}
