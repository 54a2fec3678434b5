//! The way of restoring that costs least and fits.

use super::{Choices, Expected, Job, expected};
use crate::error::{Error, Stage};
use crate::restore::Options;
use diffbir_nn::params::Precision;

/// How pictures are restored within a limit.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was chosen.
    pub choices: Choices,
    /// Which of the pictures needs most.
    pub neediest: usize,
    /// What is expected of its stages.
    pub stages: Vec<Expected>,
}

impl Plan {
    /// The most of all stages, bytes.
    pub fn most(&self) -> u64 {
        most(&self.stages).0
    }
}

/// Why there is no plan.
#[derive(Debug)]
pub enum Unfit {
    /// Something cannot be foretold.
    Error(Error),
    /// Nothing fits.
    Short {
        /// Which of the pictures needs most.
        neediest: usize,
        /// The least limit that it can be restored within, bytes.
        needs: u64,
        /// The stage that needs it.
        stage: Option<Stage>,
        /// A smaller enlargement that would fit, and what it needs.
        upscale: Option<(f64, u64)>,
        /// What stage 1 alone would need, if that fits.
        stage1: Option<u64>,
    },
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn most(stages: &[Expected]) -> (u64, Option<Stage>) {
    let largest = stages.iter().max_by_key(|expected| expected.most);
    largest.map_or((0, None), |expected| (expected.most, expected.stage))
}

/// What is left free at least, bytes: small pictures took up to so much more than was foretold.
const LEAST_FREE: u64 = 32 << 20;

/// The limit that what is foretold needs: a tenth more, for what is not counted, as the scratch of kernels.
fn limit_for(most: u64) -> u64 {
    most + LEAST_FREE.max(most / 10)
}

/// Sides of tiles that are tried, pixels.
const TILES_PX: [usize; 3] = [512, 256, 128];

/// What may be asked less of a picture.
const SMALLER: [f64; 5] = [0.75, 0.5, 0.375, 0.25, 0.125];

/// The first of all ways to restore these pictures that fits into `limit` bytes, from the fastest on: nothing special; the two
/// predictions of a guided step one after the other; networks read for their stage and dropped; smaller tiles; and, if
/// `may_round`, weights in 16 bits. Without a limit it is the first.
///
/// # Errors
/// When none fits, or when something is asked for whose needs cannot be foretold.
pub fn choose(
    jobs: &[Job],
    precision: Precision,
    may_round: bool,
    limit: Option<u64>,
) -> Result<Plan, Unfit> {
    let ways = ways(jobs, precision, may_round);
    let plan = |choices: &Choices| plan(jobs, choices);
    let limit = limit.unwrap_or(u64::MAX);
    for choices in &ways {
        let found = plan(choices)?;
        if limit_for(found.most()) > limit {
            continue;
        }
        // What a later choice has made needless is left out again.
        let mut found = found;
        let without: [fn(&mut Choices); 3] = [
            |choices| choices.most_px = None,
            |choices| choices.networks_apart = false,
            |choices| choices.guidance_apart = false,
        ];
        for less in without {
            let mut choices = found.choices;
            less(&mut choices);
            let other = plan(&choices)?;
            if limit_for(other.most()) <= limit {
                found = other;
            }
        }
        return Ok(found);
    }
    let least = least(&ways, plan)?;
    let (least_most, stage) = most(&least.stages);
    let needs = limit_for(least_most);
    let job = &jobs[least.neediest];
    let fits = |job: &Job| -> Result<Option<u64>, Error> {
        let least = self::least(&ways, |choices| self::plan(std::slice::from_ref(job), choices))?;
        let needs = limit_for(least.most());
        Ok((needs <= limit).then_some(needs))
    };
    let mut upscale = None;
    for share in SMALLER {
        let smaller = job.options.upscale * share;
        let options = Options { upscale: smaller, ..job.options.clone() };
        upscale = fits(&Job { options: &options, ..*job })?.map(|needs| (smaller, needs));
        if upscale.is_some() {
            break;
        }
    }
    let stage1 = if job.stage2 && job.options.stage1 { fits(&Job { stage2: false, ..*job })? } else { None };
    Err(Unfit::Short { neediest: least.neediest, needs, stage, upscale, stage1 })
}

/// All ways, the fastest first.
fn ways(jobs: &[Job], precision: Precision, may_round: bool) -> Vec<Choices> {
    let mut choices = Choices { precision, guidance_apart: false, networks_apart: false, most_px: None };
    let mut ways = vec![choices];
    // Without text the two come one after the other anyway.
    let reads_text = |job: &Job| job.config.stage2.as_ref().is_some_and(|stage2| stage2.text.is_some());
    if jobs.iter().any(|job| job.stage2 && reads_text(job)) {
        choices.guidance_apart = true;
        ways.push(choices);
    }
    choices.networks_apart = true;
    ways.push(choices);
    for side_px in TILES_PX {
        choices.most_px = Some(side_px);
        ways.push(choices);
    }
    if may_round && precision == Precision::F32 {
        let rounded =
            ways.clone().into_iter().map(|choices| Choices { precision: Precision::Bf16, ..choices });
        ways.extend(rounded);
    }
    ways
}

/// The neediest of pictures that are restored so.
fn plan(jobs: &[Job], choices: &Choices) -> Result<Plan, Error> {
    let mut found: Option<Plan> = None;
    for (neediest, job) in jobs.iter().enumerate() {
        let stages = expected(job, choices)?;
        if found.as_ref().is_none_or(|found| most(&stages).0 > found.most()) {
            found = Some(Plan { choices: *choices, neediest, stages });
        }
    }
    Ok(found.unwrap_or(Plan { choices: *choices, neediest: 0, stages: Vec::new() }))
}

/// The way that needs least.
fn least(ways: &[Choices], plan: impl Fn(&Choices) -> Result<Plan, Error>) -> Result<Plan, Error> {
    let mut least: Option<Plan> = None;
    for choices in ways {
        let found = plan(choices)?;
        if least.as_ref().is_none_or(|least| found.most() < least.most()) {
            least = Some(found);
        }
    }
    Ok(least.expect("there is at least one way"))
}
