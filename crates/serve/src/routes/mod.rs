//! What can be asked for, and the description of it.

mod api;
mod files;
mod health;
mod page;
pub mod pulls;
mod restorations;
mod submit;
mod view;

use crate::{App, guard, problem};
use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(api::frame())
        .routes(routes!(submit::submit, restorations::list))
        .routes(routes!(restorations::read, restorations::remove))
        .routes(routes!(restorations::events))
        .routes(routes!(files::result))
        .routes(routes!(files::stage1))
        .routes(routes!(files::stability))
        .routes(routes!(files::before))
        .routes(routes!(files::preview))
        .routes(routes!(health::controls))
        .routes(routes!(pulls::models))
        .routes(routes!(pulls::pull, pulls::cancel))
        .routes(routes!(pulls::events))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .split_for_parts();
    let description = api::whole(description, &app.engine.controls());
    router
        .merge(page::router(&description))
        .fallback(page::missing)
        .method_not_allowed_fallback(page::not_so)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::map_response(problem::of_framework))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
