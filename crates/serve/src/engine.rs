//! What the server needs of whoever restores, and what it tells in return.

use crate::problem::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::path::Path;
use utoipa::ToSchema;

/// The options of a request: numbers, words and switches by their names.
pub type Options = Map<String, Value>;

/// Restores pictures, and knows the models for it. Asked from many threads.
pub trait Engine: Send + Sync + 'static {
    /// The options that a request may have, and sets of them by name, for pages and programs.
    fn controls(&self) -> Controls;

    /// Settles what a request asks for, before anything is kept of it. `size` is the picture's, `mask` the name of
    /// another one that came with it.
    ///
    /// # Errors
    /// Where an option is unknown or wrong, or the model is not here.
    fn plan(&self, options: &Options, size: (u32, u32), mask: Option<&str>) -> Result<Plan, Problem>;

    /// How many devices restore, each on a thread of its own.
    fn devices(&self) -> usize;

    /// What restores on a device; called on the thread where it stays.
    fn restorer(&self, device: usize) -> Box<dyn Restorer>;

    /// The models, present or not.
    fn models(&self) -> Vec<Model>;

    /// Gets the files of a model; `watch` hears how far it is and may stop it.
    ///
    /// # Errors
    /// Where there is no such model or its files cannot be had.
    fn pull(&self, model: &str, watch: &mut dyn FnMut(Pull) -> ControlFlow<()>) -> Result<(), Problem>;
}

/// Restores one picture after another on one thread.
pub trait Restorer {
    /// Restores a picture, with a mask of its regions if there is one.
    ///
    /// # Errors
    /// Why there is no result, or that `follow` said stop.
    fn restore(
        &mut self,
        options: &Options,
        picture: Sent,
        mask: Option<Sent>,
        follow: &mut dyn Follow,
    ) -> Result<(), Failure>;
}

/// A picture that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Where it lies.
    pub file: &'a Path,
    /// What it is called, in messages, too.
    pub name: &'a str,
}

/// Hears of one restoration.
pub trait Follow {
    /// How far a stage is; says whether to go on.
    fn progress(&mut self, stage: &str, done: usize, total: usize) -> ControlFlow<()>;
    /// Says, whenever it is asked, whether nobody waits for the end any more.
    fn stopped(&self) -> Box<dyn Fn() -> bool + Send + Sync>;
    /// Something that a person should know.
    fn note(&mut self, text: &str);
    /// How the result looks after a step, as JPEG.
    fn preview(&mut self, step: usize, jpeg: Vec<u8>);
    /// The photograph for browsers, where they cannot show its own file.
    fn before(&mut self, png: &[u8]) -> Result<(), Failure>;
    /// What stage 1 made.
    fn stage1(&mut self, picture: &Encoded) -> Result<(), Failure>;
    /// A result.
    fn result(&mut self, picture: &Encoded, made: Made) -> Result<(), Failure>;
    /// How much the results differ: a map as PNG, and the mean deviation, 0..1 (L-STD).
    fn stability(&mut self, map: &[u8], mean: f64) -> Result<(), Failure>;
}

/// What is known of a result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes of its file.
    pub bytes: u64,
    /// Where it contradicts the photograph, if it was compared with it.
    #[serde(default)]
    pub harm: Option<Harm>,
}

/// Parts of a photograph that a result contradicts: reduced, it is further from them than stage 1 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Harm {
    /// How many parts were compared.
    pub parts: usize,
    /// How many are contradicted.
    pub harmed: usize,
    /// Whether stage 1 was kept there (option `safe`).
    pub kept: bool,
}

/// A picture as files.
pub struct Encoded {
    /// In the format that was asked for.
    pub bytes: Vec<u8>,
    /// The same as PNG, where browsers cannot show that.
    pub view: Option<Vec<u8>>,
}

/// Why a restoration has no result.
#[derive(Debug)]
pub enum Failure {
    /// [`Follow::progress`] said stop.
    Stopped,
    /// The reason, which may be shown to whoever asked.
    Told(Problem),
    /// What only the owner of the server should read: it may name files.
    Internal(String),
}

/// What a request means.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The options as they are kept: under their own names, with the seed that was drawn.
    pub options: Options,
    /// The same as a command line, the picture's name being left out.
    pub command: Vec<String>,
    /// Results a picture.
    pub results: usize,
    /// Pixels of a result.
    pub pixels: u64,
    /// Pixels at which networks see it, where that is more.
    pub working_pixels: u64,
    /// Ending of the results' names.
    pub extension: &'static str,
}

/// What can be asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Controls {
    /// The options of a restoration.
    pub options: Vec<Control>,
    /// Sets of options that somebody may start from.
    pub presets: Vec<Preset>,
}

/// One option.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Control {
    /// Its name in requests.
    pub name: String,
    /// In a few words.
    pub label: &'static str,
    /// In a sentence.
    pub help: String,
    /// The part of the page that it belongs to.
    pub group: &'static str,
    /// Of which kind its values are.
    pub kind: Kind,
    /// What is taken where it is left out; none where it follows from the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The values, where they are words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// From where to where the page lets one choose a number, and in which steps; programs may go beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 3]>,
    /// What it changes nothing without: another option that is set, that has the value behind a `=`, or that is larger
    /// than the number behind a `>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<&'static str>,
    /// Whether stage 2 alone heeds it, which engines have not.
    pub stage2: bool,
}

/// Kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Yes or no.
    Switch,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// One of some words.
    Choice,
    /// Words.
    Text,
    /// Another picture: a file in a form, base64 in JSON.
    Picture,
}

/// A word that an option takes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Choice {
    /// The word.
    pub value: String,
    /// What it means.
    pub help: String,
}

/// Options that go together.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Preset {
    /// By which people ask for it.
    pub name: &'static str,
    /// In a sentence.
    pub help: &'static str,
    /// The options.
    #[schema(value_type = Object)]
    pub options: Options,
    /// Where the page puts what does nothing before its switch is set.
    #[schema(value_type = Object)]
    pub prepared: Options,
    /// The page's sample that they begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<&'static str>,
}

/// What can be got as one, and whether it is here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// By which requests ask for it.
    pub id: String,
    /// What it is for.
    pub purpose: Purpose,
    /// In words.
    pub about: String,
    /// Whether what its first task needs is on this machine.
    pub present: bool,
    /// Tasks that it is for.
    pub tasks: Vec<String>,
    /// Those of them whose files are on this machine.
    pub ready: Vec<String>,
    /// Whether it reads prompts.
    pub prompts: bool,
    /// What it takes where a request leaves options out.
    #[schema(value_type = Object)]
    pub defaults: Options,
    /// The files that it is made of; none for what is built in.
    pub files: Vec<ModelFile>,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Restores, in two stages.
    Model,
    /// Restores without a stage 2: an option `model`, `face_engine` or `background_engine`.
    Engine,
    /// Finds faces in photographs, and tells them from what is around them.
    Faces,
}

/// A file of a model.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelFile {
    /// Its name.
    pub name: String,
    /// Its size in words.
    pub size: String,
    /// Under which licence it may be used.
    pub licence: String,
    /// Whether it is on this machine.
    pub present: bool,
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Pull {
    /// Of which file.
    pub file: String,
    /// Whether its bytes come or are checked.
    pub checking: bool,
    /// Bytes so far.
    pub done: u64,
    /// Of how many, if that is known.
    pub total: Option<u64>,
    /// Something that a person should know, such as which address is asked.
    pub note: Option<String>,
}
