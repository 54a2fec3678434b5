//! What measures pictures: the metrics that can be had, opened once.

use super::metric::Metric;
use crate::args::Eval;
use crate::doubts;
use crate::talk::say;
use anyhow::{Context, Result, ensure};
use diffbir::catalog::{self, Store};
use diffbir_metrics::{
    Backbone, Channels, Lpips, Luma, MetricError, Niqe, Picture, colour_difference, ms_ssim, psnr, ssim,
};
use diffbir_nn::Device;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The metrics of a run.
pub struct Meter {
    lpips: Option<Lpips>,
    lpips_vgg: Option<Lpips>,
    niqe: Option<Niqe>,
    border_px: usize,
    with_truth: bool,
    /// Whether the versions of a picture are samples of the same method.
    pub repeated: bool,
    /// SHA-256 of the files of weights, by metric.
    pub weights: Map<String, Value>,
}

/// Files that a metric needs, and how one gives them.
struct Wanted<'a> {
    metric: Metric,
    /// In the catalog; with dashes before it, the flag.
    name: &'static str,
    given: &'a [PathBuf],
}

/// The files of a metric that were pulled.
fn in_store(name: &str) -> Option<Vec<PathBuf>> {
    catalog::metric(name)?.find(&Store::of_user()?)
}

impl Meter {
    /// Opens what the flags name; says what has to be left out.
    pub fn open(arguments: &Eval) -> Result<Self> {
        let mut meter = Self {
            lpips: None,
            lpips_vgg: None,
            niqe: None,
            border_px: usize::from(arguments.border),
            with_truth: arguments.truth.is_some(),
            repeated: arguments.restored.len() > 1,
            weights: Map::new(),
        };
        let niqe: Vec<PathBuf> = arguments.niqe.iter().cloned().collect();
        let wanted = [
            Wanted { metric: Metric::Lpips, name: "lpips", given: &arguments.lpips },
            Wanted { metric: Metric::LpipsVgg, name: "lpips-vgg", given: &arguments.lpips_vgg },
            Wanted { metric: Metric::Niqe, name: "niqe", given: &niqe },
        ];
        for Wanted { metric, name, given } in wanted {
            if metric.needs_truth() && !meter.with_truth {
                continue;
            }
            if !given.is_empty() {
                meter.take(metric, given).with_context(|| format!("--{name}"))?;
            } else if let Some(files) = in_store(name) {
                meter.take(metric, &files)?;
            } else {
                say(format_args!(
                    "{} is left out: give its file by --{name}, or get it by `diffbir models pull {name}`",
                    metric.name()
                ));
            }
        }
        ensure!(!meter.metrics().is_empty(), "without --truth there is only NIQE, which needs its file");
        Ok(meter)
    }

    fn take(&mut self, metric: Metric, files: &[PathBuf]) -> Result<()> {
        match metric {
            Metric::Lpips => self.lpips = Some(Lpips::open(files, Backbone::AlexNet, &Device::flex())?),
            Metric::LpipsVgg => self.lpips_vgg = Some(Lpips::open(files, Backbone::Vgg16, &Device::flex())?),
            Metric::Niqe => self.niqe = Some(Niqe::open(&files[0])?),
            _ => {}
        }
        let mut hashes = Vec::new();
        for file in files {
            doubts::of_file(file)?.iter().for_each(say);
            hashes.push(Value::from(doubts::hash_of(file)?));
        }
        self.weights.insert(metric.key().into(), hashes.into());
        Ok(())
    }

    /// The columns.
    pub fn metrics(&self) -> Vec<Metric> {
        let has = |metric: &Metric| match metric {
            Metric::Niqe => self.niqe.is_some(),
            Metric::Lpips => self.lpips.is_some(),
            Metric::LpipsVgg => self.lpips_vgg.is_some(),
            _ => self.with_truth,
        };
        Metric::ALL.into_iter().filter(has).collect()
    }

    /// A picture without the border that does not count.
    pub fn cut(&self, picture: &Picture) -> Result<Picture, MetricError> {
        picture.without_border(self.border_px)
    }

    /// The value of one of [`Meter::metrics`].
    pub fn value(
        &self,
        metric: Metric,
        picture: &Picture,
        truth: Option<&Picture>,
    ) -> Option<Result<f64, MetricError>> {
        if metric == Metric::Niqe {
            return Some(self.niqe.as_ref()?.score(picture, Luma::Full));
        }
        let truth = truth?;
        Some(match metric {
            Metric::Psnr => psnr(picture, truth, Channels::Rgb),
            Metric::PsnrY => psnr(picture, truth, Channels::Luma),
            Metric::Ssim => ssim(picture, truth, Channels::Rgb),
            Metric::SsimY => ssim(picture, truth, Channels::Luma),
            Metric::MsSsimY => ms_ssim(picture, truth, Channels::Luma),
            Metric::Lpips => self.lpips.as_ref()?.distance(picture, truth),
            Metric::LpipsVgg => self.lpips_vgg.as_ref()?.distance(picture, truth),
            Metric::Colour => colour_difference(picture, truth),
            Metric::Niqe => return None,
        })
    }
}
