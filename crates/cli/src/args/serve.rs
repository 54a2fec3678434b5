//! Flags of `diffbir serve`.

use super::{Precision, positive};
use clap::Args;
use diffbir::device::DeviceChoice;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Args)]
pub struct Serve {
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 7860)]
    pub port: u16,

    /// The address to listen on; one that others reach wants --token, or --no-token.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub listen: IpAddr,

    /// What requests have to show: `Authorization: Bearer TOKEN`, or /?token=TOKEN in a browser. Better given as
    /// DIFFBIR_TOKEN, which other users of the machine do not see.
    #[arg(long)]
    pub token: Option<String>,

    /// Let everybody who reaches the address use it.
    #[arg(long, conflicts_with = "token")]
    pub no_token: bool,

    /// A name by which it is reached, besides localhost and addresses in numbers; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,

    /// The folder for pictures and jobs, one server at a time [default: diffbir/serve in the user's data folder].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// As for `restore`; given several times, each device restores by itself.
    #[arg(long, default_value = "auto")]
    pub device: Vec<DeviceChoice>,

    /// As for `restore`.
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,

    /// Bytes of an uploaded picture at most.
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub max_upload: u64,

    /// Pixels of an uploaded picture at most.
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = 50.0, value_parser = positive)]
    pub max_pixels: f64,

    /// Pixels of a result at most.
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = 24.0, value_parser = positive)]
    pub max_output: f64,

    /// Jobs that wait at most; more are refused with the time to try again.
    #[arg(long, value_name = "JOBS", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub max_queue: u16,

    /// How long a job may take.
    #[arg(long, value_name = "MINUTES", default_value_t = 60.0, value_parser = positive)]
    pub max_minutes: f64,

    /// Jobs that are kept after their end; the oldest are removed.
    #[arg(long, value_name = "JOBS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keep: u32,

    /// Bytes that are kept of them.
    #[arg(long, value_name = "MB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub keep_mb: u64,

    /// How long the running job may go on when the server is told to end; it is begun anew at the next start.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=3600))]
    pub grace: u16,
}
