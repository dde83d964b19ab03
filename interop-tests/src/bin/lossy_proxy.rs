//! `lossy-proxy`: roads between processes on which messages are lost, delayed and repeated.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use bft_ws_interop_tests::proxy::{Count, Rates, Route, serve};
use clap::Parser;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Loses, delays and repeats HTTP POSTs between callers and targets.
///
/// Prints one JSON line when it listens and one with what it did when it ends (SIGTERM, SIGINT).
#[derive(Parser)]
#[command(after_help = "Example, 10 % lost each way:\n  \
    lossy-proxy --route 127.0.0.1:9001=127.0.0.1:8001 --drop-request 10 --drop-response 10")]
struct Args {
    /// Where to listen and whom to forward to; may be repeated. Port 0 takes any free one
    #[arg(long = "route", required = true, value_name = "LISTEN=TARGET", value_parser = route)]
    routes: Vec<(SocketAddr, SocketAddr)>,
    /// Percent of requests that never reach the target
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    drop_request: f64,
    /// Percent of responses that never reach the caller
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    drop_response: f64,
    /// Percent of requests that reach the target twice
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    duplicate: f64,
    /// Percent of requests, and of responses, that are held for up to --delay-ms
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    delay: f64,
    /// The longest that one is held
    #[arg(long, default_value_t = 50)]
    delay_ms: u64,
    /// Equal seeds give the k-th POST of a route equal fates
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn route(text: &str) -> Result<(SocketAddr, SocketAddr)> {
    let (listen, target) = text.split_once('=').context("not LISTEN=TARGET")?;
    Ok((listen.parse()?, target.parse()?))
}

fn percent(text: &str) -> Result<f64> {
    let rate: f64 = text.parse()?;
    anyhow::ensure!((0.0..=100.0).contains(&rate), "not between 0 and 100");
    Ok(rate)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(run(args)))
}

async fn run(args: Args) -> Result<()> {
    let rates = Rates {
        drop_request: args.drop_request,
        drop_response: args.drop_response,
        duplicate: args.duplicate,
        delay: args.delay,
        delay_at_most: Duration::from_millis(args.delay_ms),
    };
    let mut ends = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let mut roads = Vec::new();
    for (index, (listen, target)) in args.routes.into_iter().enumerate() {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        // A seed of its own for each road.
        let seed = args.seed ^ ((index as u64) << 48);
        let count = Rc::new(Count::default());
        let route = Route {
            listener,
            target,
            rates,
            seed,
        };
        tokio::task::spawn_local(serve(route, count.clone()));
        roads.push((address, target, count));
    }
    let routes: Vec<_> = roads
        .iter()
        .map(|(listen, target, _)| json!({ "listen": listen, "target": target }))
        .collect();
    println!(
        "{}",
        json!({ "event": "ready", "routes": routes, "pid": std::process::id() })
    );
    let [terminate, interrupt] = &mut ends;
    tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
    println!(
        "{}",
        json!({ "event": "end", "routes": roads.iter().map(report).collect::<Vec<_>>() })
    );
    Ok(())
}

fn report((listen, target, count): &(SocketAddr, SocketAddr, Rc<Count>)) -> serde_json::Value {
    json!({
        "listen": listen,
        "target": target,
        "posts": count.posts.get(),
        "dropped_requests": count.dropped_requests.get(),
        "dropped_responses": count.dropped_responses.get(),
        "duplicated": count.duplicated.get(),
        "delayed": count.delayed.get(),
        "unreachable": count.unreachable.get(),
    })
}
