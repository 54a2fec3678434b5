//! The metrics of this crate against those logged for a method's own results.
//!
//!     cargo build --release --workspace --example osediff
//!     target/release/examples/osediff FOLDER [--lpips FILE] [--niqe FILE]
//!
//! FOLDER is `preset/datasets/benchmark_realsr` or `benchmark_drealsr` of a checkout of
//! github.com/cswry/OSEDiff. Prints what was found and logged for each pair, then the means, the largest
//! differences and the time that each metric took.

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use diffbir_metrics::{Backbone, Channels, Lpips, Luma, MetricError, Niqe, Picture, psnr, ssim};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Logged values of one pair.
struct Line {
    name: String,
    /// PSNR, SSIM, LPIPS, NIQE.
    values: [f64; 4],
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("which FOLDER?")?);
    let (mut lpips, mut niqe) = (None, None);
    while let Some(flag) = arguments.next() {
        let file = PathBuf::from(arguments.next().with_context(|| format!("{flag} needs a file"))?);
        match flag.as_str() {
            "--lpips" => lpips = Some(Lpips::open(&[&file], Backbone::AlexNet, &Device::flex())?),
            "--niqe" => niqe = Some(Niqe::open(&file)?),
            _ => bail!("{flag}: only --lpips and --niqe are known"),
        }
    }
    let mut rows = ["PSNR-Y", "SSIM-Y", "LPIPS", "NIQE"].map(|name| Row { name, ..Row::default() });
    for line in logged(&folder)? {
        let open = |part: &str| Picture::open(&folder.join(part).join(&line.name));
        let (result, truth) = (open("results_osediff")?, open("test_HR")?);
        // The log's PSNR has 1e-8 added to the error of values 0..1.
        let with_epsilon = |db: f64| -10.0 * (10f64.powf(-db / 10.0) + 1e-8).log10();
        let metrics: [&dyn Fn() -> Result<Option<f64>, MetricError>; 4] = [
            &|| psnr(&result, &truth, Channels::Luma).map(with_epsilon).map(Some),
            &|| ssim(&result, &truth, Channels::Luma).map(Some),
            &|| lpips.as_ref().map(|lpips| lpips.distance(&result, &truth)).transpose(),
            &|| niqe.as_ref().map(|niqe| niqe.score(&result, Luma::Full)).transpose(),
        ];
        print!("{}:", line.name);
        for ((row, metric), logged) in rows.iter_mut().zip(metrics).zip(line.values) {
            let start = Instant::now();
            let Some(found) = metric()? else { continue };
            row.seconds += start.elapsed().as_secs_f64();
            row.pairs.push((found, logged));
            print!(" {} {found:.6} ({logged:.6})", row.name);
        }
        println!();
    }
    println!("\n| metric | pairs | mean | logged | largest difference of a pair | ms a pair |");
    println!("|---|---|---|---|---|---|");
    for Row { name, pairs, seconds } in rows.iter().filter(|row| !row.pairs.is_empty()) {
        let count = pairs.len() as f64;
        let found = pairs.iter().map(|pair| pair.0).sum::<f64>() / count;
        let logged = pairs.iter().map(|pair| pair.1).sum::<f64>() / count;
        let largest = pairs.iter().map(|pair| (pair.0 - pair.1).abs()).fold(0.0, f64::max);
        let ms = seconds / count * 1e3;
        println!("| {name} | {count} | {found:.5} | {logged:.5} | {largest:.1e} | {ms:.1} |");
    }
    Ok(())
}

/// One metric over all pairs.
#[derive(Default)]
struct Row {
    name: &'static str,
    /// What was found and what is logged.
    pairs: Vec<(f64, f64)>,
    seconds: f64,
}

/// `DATE - INFO: results_osediff/NAME | PSNR: 25.793726; SSIM: ..; .. | Runtime: ..` lines.
fn logged(folder: &Path) -> Result<Vec<Line>> {
    let logs = folder.join("results_osediff/metrics");
    let log = std::fs::read_dir(&logs).with_context(|| format!("{}", logs.display()))?.next();
    let text = std::fs::read_to_string(log.context("no log")??.path())?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once("results_osediff/") else { continue };
        let Some((name, values)) = rest.split_once(" | ") else { continue };
        let value = |metric: &str| -> Result<f64> {
            let (_, rest) = values.split_once(&format!("{metric}: ")).context(line.to_string())?;
            Ok(rest.split([';', ' ']).next().unwrap_or_default().parse()?)
        };
        let values = [value("PSNR")?, value("SSIM")?, value("LPIPS")?, value("NIQE")?];
        lines.push(Line { name: name.into(), values });
    }
    Ok(lines)
}
