//! `diffbir serve`.

mod controls;
mod engine;
mod models;
mod preview;
mod request;
mod restorer;

use crate::args::Serve;
use crate::stop::on_end;
use crate::talk::say;
use anyhow::{Context, Result, bail, ensure};
use diffbir_serve::{Limits, Server, Settings};
use engine::Restoring;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The shortest token: it must not be guessed.
const SHORTEST_TOKEN: usize = 16;

pub fn run(arguments: &Serve) -> Result<ExitCode> {
    allow_open_files();
    let settings = settings(arguments)?;
    let has_token = settings.token.is_some();
    let engine = Restoring::new(&arguments.device, arguments.precision)?;
    let server = Server::open(settings, Arc::new(engine))?;
    let (mut end, ended) = diffbir_serve::end_signal();
    on_end(move || {
        say("ending; the running job may go on for a while, or is begun anew at the next start");
        end.signal();
    })?;
    let address = server.address()?;
    say(format_args!(
        "diffbir listens on http://{address}/ and its API is described at http://{address}/api"
    ));
    if has_token {
        say("open /?token=TOKEN in a browser");
    }
    server.run(ended)?;
    Ok(ExitCode::SUCCESS)
}

/// A connection is an open file, and of these programs get few unless they ask for more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "calls the C library")]
fn allow_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a structure that lives as long as they run.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Other systems are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn allow_open_files() {}

fn settings(arguments: &Serve) -> Result<Settings> {
    let token = arguments.token.clone().or_else(|| std::env::var("DIFFBIR_TOKEN").ok());
    let token = token.filter(|_| !arguments.no_token);
    if let Some(token) = &token {
        ensure!(
            token.len() >= SHORTEST_TOKEN
                && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
            "--token: must be {SHORTEST_TOKEN} letters, digits, - and _ at least, such as `openssl rand -hex 16` gives"
        );
    }
    if !arguments.listen.is_loopback() && token.is_none() && !arguments.no_token {
        bail!(
            "--listen {}: others may reach it, so it wants --token (or --no-token, to let everybody in)",
            arguments.listen
        );
    }
    let megapixels = |limit: f64| (limit * 1e6) as u64;
    Ok(Settings {
        listen: SocketAddr::new(arguments.listen, arguments.port),
        token,
        hosts: arguments.host.clone(),
        data: data_folder(arguments)?,
        grace: Duration::from_secs(arguments.grace.into()),
        limits: Limits {
            upload_bytes: arguments.max_upload << 20,
            pixels: megapixels(arguments.max_pixels),
            output_pixels: megapixels(arguments.max_output),
            queue: arguments.max_queue.into(),
            job: Duration::from_secs_f64(arguments.max_minutes * 60.0),
            kept_jobs: arguments.keep as usize,
            kept_bytes: arguments.keep_mb << 20,
            ..Limits::default()
        },
    })
}

fn data_folder(arguments: &Serve) -> Result<PathBuf> {
    let own = || dirs::data_local_dir().map(|folder| folder.join("diffbir").join("serve"));
    arguments.data.clone().or_else(own).context("there is no data folder for this user: give --data")
}
