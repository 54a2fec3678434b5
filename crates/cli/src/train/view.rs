//! How a training run is told of: a bar on a terminal, lines into a pipe.

use crate::talk::say;
use diffbir_train::run::{Report, Steps};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// What a person sees of a run.
pub struct View {
    bar: Option<ProgressBar>,
}

impl View {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {wide_msg}");
            bar.set_style(style.expect("a valid template"));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar }
    }

    pub fn show(&mut self, report: Report) {
        match (report, &self.bar) {
            (Report::LeftOut { why }, _) => self.say(&format!("warning: {why}: left out")),
            (Report::Latents { done, total }, Some(bar)) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message("latents");
            }
            (Report::Latents { done, total }, None) if done.is_multiple_of(50) => {
                self.say(&format!("latents: {done}/{total}"));
            }
            (Report::Latents { .. }, None) => {}
            (Report::Steps(steps), Some(bar)) => {
                bar.set_length(steps.of);
                bar.set_position(steps.step);
                bar.set_message(line(&steps));
            }
            (Report::Steps(steps), None) => self.say(&format!("step {}: {}", steps.step, line(&steps))),
            (Report::Validation { step, measured }, _) => {
                self.say(&format!("validation after step {step}: {}", measured.text));
            }
        }
    }

    /// A line that stays, above the bar if there is one.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    pub fn finish(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

fn line(steps: &Steps) -> String {
    let terms: String = steps.terms.iter().map(|(name, value)| format!(" {name} {value:.4}")).collect();
    let terms = if terms.is_empty() { terms } else { format!(" ({})", terms.trim_start()) };
    let left = Duration::from_secs_f64(steps.seconds * (steps.of - steps.step) as f64);
    let memory = memory_stats::memory_stats()
        .map_or(String::new(), |memory| format!(", {:.0} MB", memory.physical_mem as f64 / 1e6));
    format!(
        "loss {:.4}{terms}, rate {:.2e}, gradient {:.2}, {:.1} images/s, {:.0} % waiting for data{memory}, ETA {}",
        steps.loss,
        steps.rate,
        steps.norm,
        steps.examples_per_second,
        100.0 * steps.waited,
        HumanDuration(left)
    )
}
