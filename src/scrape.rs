//! The listener for Prometheus. It serves the metrics and nothing else, so that it can have an address
//! that visitors cannot reach.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::chat::Chat;
use crate::metrics::{METRICS, TEXT};

/// Where the metrics are.
pub const PATH: &str = "/metrics";

/// Serves the metrics of the process and of this chat until `stop`.
pub async fn serve(listener: TcpListener, chat: Arc<Chat>, stop: impl Future<Output = ()>) {
    let routes = Router::new().route(PATH, get(async move || metrics(&chat)));
    tokio::select! {
        // It never ends by itself.
        _ = axum::serve(listener, routes) => {}
        // A scrape under way is not worth waiting for.
        () = stop => {}
    }
}

fn metrics(chat: &Chat) -> Response {
    chat.gauge();
    match METRICS.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            tracing::error!("could not write the metrics: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
