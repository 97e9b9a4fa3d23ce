//! Floor of the HTTP surface: axum that reads the body and answers 202. Nothing is durable.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Serves until the runtime ends; gives the address.
pub async fn serve_bare(path: &str) -> SocketAddr {
    let accept = |body: Bytes| async move {
        std::hint::black_box(body.len());
        StatusCode::ACCEPTED
    };
    let router = Router::new().route(path, post(accept));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
