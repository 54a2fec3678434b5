//! Finds the weights that are built in.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=DIFFBIR_NANO_FILE");
    let file = match std::env::var_os("DIFFBIR_NANO_FILE") {
        Some(file) => PathBuf::from(file),
        None => {
            let crate_folder =
                std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this for build scripts");
            PathBuf::from(crate_folder).join("nano.safetensors")
        }
    };
    println!("cargo::rerun-if-changed={}", file.display());
    println!("cargo::rustc-env=DIFFBIR_NANO_FILE={}", file.display());
}
