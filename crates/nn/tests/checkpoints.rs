//! Files as PyTorch writes them: `goldens/make.py` says what each holds.

use diffbir_nn::TensorData;
use diffbir_nn::checkpoint::{Checkpoint, Float, check_sums};
use diffbir_nn::params::{Init, Source};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

#[test]
fn every_form_of_a_file_gives_the_same_tensors() {
    let expected = Checkpoint::open(&file("expected.safetensors")).unwrap();
    let names = ["a.weight", "b.bias"];
    let forms = "zip legacy ordered nested_state_dict nested_params nested_params_ema module f16 bf16 f64 integers \
        parameters strided shared legacy_shared every_second protocol_4 deflated without_sums cuda lightning forbidden";
    for form in forms.split_whitespace() {
        let found = Checkpoint::open(&file(&format!("{form}.pth"))).unwrap();
        let weights = found.entries().filter(|(.., format)| format.is_some());
        assert_eq!(weights.map(|(name, ..)| name).collect::<Vec<_>>(), names, "{form}");
        for name in names {
            assert_eq!(found.get(name).unwrap(), expected.get(name).unwrap(), "{form}: {name}");
        }
    }
}

#[test]
fn what_lies_beside_the_weights_is_told_and_never_run() {
    let open = |name: &str| Checkpoint::open(&file(name)).unwrap();
    let formats = |name: &str| open(name).entries().map(|(.., format)| format).collect::<Vec<_>>();
    assert_eq!(formats("bf16.pth"), [Some(Float::Bf16); 2]);
    assert_eq!(open("nested_state_dict.pth").extras, ["optimizer_states"]);
    open("forbidden.pth");
    assert!(!std::path::Path::new("pickle-was-run").exists());
}

#[test]
fn whole_numbers_are_compared_and_never_read() {
    let mut found = Checkpoint::open(&file("integers.pth")).unwrap();
    let whole = found.entries().filter(|(.., format)| format.is_none());
    assert_eq!(
        whole.map(|(name, shape, _)| (name, shape)).collect::<Vec<_>>(),
        [("mask", &[2][..]), ("position_ids", &[4]), ("steps", &[])]
    );
    assert!(found.get("position_ids").unwrap().is_none());
    let told = found.values("position_ids", &[4], Init::FanIn).unwrap_err().to_string();
    assert!(told.contains("integers.pth: the tensor `position_ids` is stored in numbers"), "{told}");
    let told = found.skip("position_ids", &[5]).unwrap_err().to_string();
    assert!(told.contains("`position_ids` has shape [4] where [5]"), "{told}");
    found.skip("position_ids", &[4]).unwrap();
    found.values("a.weight", &[3, 4], Init::FanIn).unwrap();
    found.values("b.bias", &[5], Init::FanIn).unwrap();
    let told = found.expect_all_used().unwrap_err().to_string();
    assert!(told.contains("2 tensors that the network does not know, first `mask`"), "{told}");
    let kept = Checkpoint::from_static(found.to_safetensors(false).unwrap().leak(), "kept").unwrap();
    assert_eq!(kept.entries().map(|(name, ..)| name).collect::<Vec<_>>(), ["a.weight", "b.bias"]);
}

#[test]
fn what_is_no_whole_file_of_tensors_is_refused_by_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let cut = folder.path().join("cut.pth");
    for form in ["zip.pth", "legacy.pth", "deflated.pth", "strided.pth"] {
        let whole = std::fs::read(file(form)).unwrap();
        for length in (0..whole.len()).step_by(7) {
            std::fs::write(&cut, &whole[..length]).unwrap();
            // A cut in the last tensor of a legacy file is only noticed when that is read.
            let error = match Checkpoint::open(&cut) {
                Err(error) => error.to_string(),
                Ok(found) => {
                    let read: Result<Vec<_>, _> =
                        found.entries().map(|(name, ..)| name).map(|name| found.get(name)).collect();
                    read.err().unwrap_or_else(|| panic!("{form} cut to {length} passes")).to_string()
                }
            };
            assert!(error.contains("cut.pth"), "{error}");
        }
    }
}

#[test]
fn bytes_that_are_changed_never_panic() {
    let folder = tempfile::TempDir::new().unwrap();
    let bent = folder.path().join("bent.pth");
    for form in ["zip.pth", "legacy.pth", "nested_state_dict.pth", "expected.safetensors"] {
        let whole = std::fs::read(file(form)).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            std::fs::write(&bent, bytes).unwrap();
            if let Ok(found) = Checkpoint::open(&bent) {
                for (name, ..) in found.entries() {
                    let _ = found.get(name);
                }
            }
        }
    }
}

#[test]
fn sums_of_a_file_are_compared_where_there_are_some() {
    let whole = |path: &Path| check_sums(path, &mut |_| ControlFlow::Continue(()));
    for sound in ["zip.pth", "deflated.pth", "without_sums.pth", "legacy.pth", "expected.safetensors"] {
        assert_eq!(whole(&file(sound)).unwrap(), ControlFlow::Continue(()), "{sound}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let bent = folder.path().join("bent.pth");
    let mut bytes = std::fs::read(file("zip.pth")).unwrap();
    let values = Checkpoint::open(&file("expected.safetensors")).unwrap().get("b.bias").unwrap().unwrap().1;
    let first: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let at =
        bytes.windows(first.len()).position(|window| window == first).expect("values lie there as they are");
    bytes[at] ^= 1;
    std::fs::write(&bent, bytes).unwrap();
    let error = whole(&bent).unwrap_err().to_string();
    assert!(error.contains("bent.pth") && error.contains("is damaged"), "{error}");
}

#[test]
fn two_states_of_training_are_mixed() {
    let of = |name: &str, values: Vec<f32>, shape: Vec<usize>| {
        let tensors = [(name.to_string(), TensorData::new(values, shape))];
        Checkpoint::from_tensors(tensors.into_iter().collect())
    };
    let (a, b) = (of("w", vec![1.0, 2.0], vec![2]), of("w", vec![3.0, -2.0], vec![2]));
    assert_eq!(a.mixed(&b, 0.25).unwrap().get("w").unwrap().unwrap().1, [2.5, -1.0]);
    assert_eq!(a.mixed(&b, 1.0).unwrap().get("w").unwrap().unwrap().1, [1.0, 2.0]);
    let other = of("w", vec![1.0; 3], vec![3]).named("other.pth");
    let error = a.mixed(&other, 0.5).err().unwrap().to_string();
    assert!(error.contains("other.pth") && error.contains("[3]"), "{error}");
    let error = a.mixed(&of("v", vec![1.0; 2], vec![2]).named("v.pth"), 0.5).err().unwrap().to_string();
    assert!(error.contains("v.pth: lacks the tensor `w`"), "{error}");
}
