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

/// Before there is anything to count.
const WAITING: &str = "{spinner} {elapsed} {msg}";

/// While something is counted; the message has lines of its own, none of them longer than narrow terminals are wide.
const COUNTING: &str = "{bar:24} {pos}/{len} {elapsed} {msg}";

impl View {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(WAITING));
            bar.set_message("getting ready");
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar }
    }

    pub fn show(&mut self, report: Report) {
        match (report, &self.bar) {
            (Report::LeftOut { why }, _) => self.say(&format!("warning: {why}: left out")),
            (Report::Warning { what }, _) => self.say(&format!("warning: {what}")),
            (Report::Latents { done, total }, Some(bar)) => {
                count(bar, done as u64, total as u64, "latents".into());
            }
            (Report::Latents { done, total }, None) if done.is_multiple_of(50) => {
                self.say(&format!("latents: {done}/{total}"));
            }
            (Report::Latents { .. }, None) => {}
            (Report::Steps(steps), Some(bar)) => {
                let message = format!("\n{}\n{}", line(&steps), rest(&steps));
                count(bar, steps.step, steps.of, message);
            }
            (Report::Steps(steps), None) => {
                self.say(&format!("step {}: {}, {}", steps.step, line(&steps), rest(&steps)));
            }
            (Report::Validation { step, measured }, bar) => {
                self.say(&format!("validation after step {step}: {}", measured.text));
                if let Some(bar) = bar.as_ref().filter(|bar| bar.length().is_none()) {
                    bar.set_message("first steps");
                }
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}

fn count(bar: &ProgressBar, done: u64, of: u64, message: String) {
    let is_other = bar.length() != Some(of);
    bar.set_length(of);
    bar.set_position(done);
    bar.set_message(message);
    // Last, so that nothing is shown half.
    if is_other {
        bar.set_style(style(COUNTING));
    }
}

/// What is looked at most.
fn line(steps: &Steps) -> String {
    let left = Duration::from_secs_f64(steps.seconds * (steps.of - steps.step) as f64);
    let memory = memory_stats::memory_stats()
        .map_or(String::new(), |memory| format!(", {:.0} MB", memory.physical_mem as f64 / 1e6));
    format!(
        "loss {:.4}, {:.1} images/s, {:.0} % waiting for data{memory}, ETA {}",
        steps.loss,
        steps.examples_per_second,
        100.0 * steps.waited,
        HumanDuration(left)
    )
}

/// What the loss is made of, how long the gradient is, how far a step goes.
fn rest(steps: &Steps) -> String {
    let terms: String = steps.terms.iter().map(|(name, value)| format!("{name} {value:.4}, ")).collect();
    format!("{terms}gradient {:.2}, rate {:.2e}", steps.norm, steps.rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(terms: Vec<(&'static str, f64)>) -> Steps {
        Steps {
            step: 50,
            of: 150_000,
            loss: 1234.5678,
            terms,
            rate: 1e-4,
            norm: 1234.56,
            seconds: 1.5,
            waited: 1.0,
            examples_per_second: 123.4,
        }
    }

    #[test]
    fn no_line_is_wider_than_a_narrow_terminal() {
        let told = line(&steps(vec![]));
        for part in ["loss 1234.5678", "123.4 images/s", "100 % waiting for data", " MB", "ETA 3 days"] {
            assert!(told.contains(part), "{told}");
        }
        // So much memory it has on larger machines.
        assert!(told.len() + 3 <= 80, "{told}");
        let told = rest(&steps(vec![("picture", 0.5), ("kl", 0.25)]));
        assert_eq!(told, "picture 0.5000, kl 0.2500, gradient 1234.56, rate 1.00e-4");
    }
}
