//! Contact sheets: versions of a picture side by side, and beneath them where they have the most detail.

use super::measured::{Measured, Row, Subject};
use super::metric::Metric;
use super::pairs::TRUTH;
use crate::sheet::{Panel, draw, magnified, of_size};
use diffbir_metrics::Picture;

/// The folder of sheets in the output's folder.
pub const SHEETS: &str = "sheets";
/// Numbers that stand beside the names.
const TOLD: [Metric; 3] = [Metric::Psnr, Metric::Lpips, Metric::Niqe];

/// The sheet of a picture; nothing where no picture could be had, neither the truth nor a version. What only enlarges
/// is left out for what it started from.
pub fn sheet(subject: &Subject, measured: &Measured) -> Option<Picture> {
    let truth = subject.truth.as_ref();
    let had = |(_, picture): &'_ (String, Result<Picture, String>)| picture.is_ok();
    let first = || subject.versions.iter().find(|version| had(version))?.1.as_ref().ok();
    let reference = truth.and_then(|truth| truth.as_ref().ok()).or_else(first)?;
    let size = (reference.width_px, reference.height_px);
    let input = subject.input.as_ref();
    let whole_input = input.map(|input| magnified(input, size));
    let mut panels = Vec::new();
    panels.extend(whole_input.iter().zip(input).map(|(picture, input)| Panel {
        name: "input".into(),
        numbers: of_size(input),
        picture: Ok(picture),
    }));
    for ((method, picture), row) in subject.versions.iter().zip(&measured.rows) {
        if input.is_some() && super::contest::is_plain(method) {
            continue;
        }
        let picture = picture.as_ref().map_err(String::clone).and_then(|picture| {
            let fits = (picture.width_px, picture.height_px) == size;
            let other = || row.failed.clone().unwrap_or_else(|| of_size(picture));
            if fits { Ok(picture) } else { Err(other()) }
        });
        panels.push(Panel { name: method.clone(), numbers: numbers(row), picture });
    }
    panels.extend(truth.map(|picture| Panel {
        name: TRUTH.into(),
        numbers: String::new(),
        picture: picture.as_ref().map_err(String::clone),
    }));
    Some(draw(&measured.picture, &[&panels], reference))
}

fn numbers(row: &Row) -> String {
    let told = TOLD.iter().filter_map(|metric| {
        let value = row.value(*metric)?;
        Some(match metric {
            Metric::Psnr => format!("{value:.2} dB"),
            _ => format!("{} {value:.3}", metric.name()),
        })
    });
    told.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::{GAP_PX, INK, LINE_PX};

    fn flat(width_px: usize, height_px: usize) -> Picture {
        Picture { width_px, height_px, rgb: vec![90; 3 * width_px * height_px] }
    }

    #[test]
    fn what_is_missing_has_its_reason() {
        let picture = flat(20, 3);
        let mut rows = vec![Row::default(), Row::default()];
        rows[0].failed = Some("there is no picture".into());
        let measured =
            Measured { picture: "a".into(), stamp: String::new(), rows, spread: None, apart: None };
        let with = |reason: &str| Subject {
            name: "a".into(),
            stamp: String::new(),
            truth: Some(Ok(picture.clone())),
            input: None,
            versions: vec![("one".into(), Err(reason.into())), ("two".into(), Ok(picture.clone()))],
        };
        let drawn = |subject: &Subject| sheet(subject, &measured).unwrap();
        let (short, long) = (drawn(&with("gone")), drawn(&with(&"a/long/path/to/nowhere ".repeat(20))));
        assert_eq!(short.width_px, GAP_PX + 3 * (500 + GAP_PX));
        let ink = |sheet: &Picture| {
            let rows = sheet.rgb.chunks(3 * sheet.width_px).skip(2 * GAP_PX + 3 * LINE_PX);
            rows.flat_map(|row| row[..3 * 500].chunks(3)).filter(|pixel| *pixel == INK).count()
        };
        // Of four letters, and of hundreds, for which there is room.
        assert!(ink(&short) > 50 && ink(&long) > 50 * ink(&short), "{} {}", ink(&short), ink(&long));
        // Without the truth versions are still shown, and with none of both there is no sheet.
        let mut subject = with("gone");
        subject.truth = Some(Err("torn".into()));
        assert_eq!(drawn(&subject).width_px, short.width_px);
        subject.versions.pop();
        assert_eq!(sheet(&subject, &measured), None);
    }
}
