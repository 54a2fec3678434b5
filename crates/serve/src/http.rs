//! Connections: so many at once, and none that says nothing.

use crate::settings::Limits;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Answers connections until this is dropped.
pub async fn accept(listener: TcpListener, router: Router, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.silence).max_buf_size(64 << 10);
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                // Too many open files, most likely: those that are open will be closed.
                crate::log(format_args!("no connection can be taken: {error}"));
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let _ = connection.set_nodelay(true);
        let (http, service) = (http.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // A client that goes away or talks nonsense is its own affair.
            let _ = http.serve_connection(TokioIo::new(connection), service).await;
            drop(slot);
        });
    }
}
