//! How soon the networks at official size are left when nobody waits for their end any more.
//!
//!     cargo test --release --workspace --test full_size_stop -- --ignored --nocapture --test-threads 1
//!
//! Each prints how long it runs, and how long it goes on after it was told to stop at five points of its way.

#[path = "parity/support.rs"]
mod support;

use burn::tensor::{Device, Tensor};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::KlConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::{on_workers, stop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{context, given, made, picture, root3};

/// Runs it to its end, then tells it five times to stop.
fn measure<R: Send>(name: &str, run: impl Fn() -> R + Sync) {
    // As in a restoration, on a thread of the pool.
    let run = || on_workers(&Device::flex(), &run);
    let since = Instant::now();
    assert!(stop::unless(|| false, run).is_some());
    let mut whole = since.elapsed();
    let after = [0.1, 0.3, 0.5, 0.7, 0.9].map(|share| {
        loop {
            match told_after(whole.mul_f64(share), run) {
                Ok(after) => return after,
                // On a machine with other things to do one run is faster than another.
                Err(shorter) => whole = whole.min(shorter),
            }
        }
    });
    let most = after.iter().max().expect("five times");
    println!("{name}: {whole:.2?} whole, {most:.2?} at most after being told: {after:.2?}");
}

/// How long it goes on after it was told to stop at a time, or how long it took where it had ended before.
fn told_after<R>(time: Duration, run: impl FnOnce() -> R) -> Result<Duration, Duration> {
    let told = Arc::new(AtomicBool::new(false));
    let asked = told.clone();
    let since = Instant::now();
    let teller = thread::spawn(move || {
        thread::sleep(time);
        told.store(true, Ordering::SeqCst);
        Instant::now()
    });
    let left = stop::unless(move || asked.load(Ordering::SeqCst), run);
    let end = Instant::now();
    let told = teller.join().expect("it told");
    if end < told {
        return Err(end - since);
    }
    assert!(left.is_none(), "it is left");
    Ok(end - told)
}

#[test]
#[ignore = "official size: needs about 6 GB and 2 minutes"]
fn a_guided_step_is_left_between_layers() {
    let config = UnetConfig::official();
    let batch = |key: &str| Tensor::cat(vec![given(key, [1, 4, 64, 64], root3); 2], 0);
    let (x, hint) = (batch("full_x"), batch("full_c_img"));
    let tokens = Tensor::cat(vec![context("full_context", [1, 77, 1024]); 2], 0);
    let time = Tensor::from_floats([499.0, 499.0], &Device::flex());
    let (control, unet) =
        (made(|params| ControlNet::new(params, &config)), made(|params| config.build(params)));
    measure("a guided step at 64x64", || {
        let extra = control.forward(x.clone(), hint.clone(), Tensor::clone(&time), tokens.clone(), 1.0);
        unet.forward(x.clone(), Tensor::clone(&time), Some(tokens.clone()), Some(extra))
    });
}

#[test]
#[ignore = "official size: needs about 3 GB and 2 minutes"]
fn autoencoder_and_stage_1_are_left_between_layers() {
    let network = made(|params| KlConfig::official().build(params));
    let x = given("full_vae_512x512", [1, 3, 512, 512], picture);
    measure("encoding 512x512", || network.moments(x.clone()));
    let z = given("full_vae_latent_64x64", [1, 4, 64, 64], root3);
    measure("decoding to 512x512", || network.decode(z.clone()));
    let network = made(|params| SwinIrConfig::official().build(params));
    let x = given("full_swinir_512x512", [1, 3, 512, 512], picture);
    measure("SwinIR at 512x512", || network.forward(x.clone()));
}
