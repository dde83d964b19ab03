//! `bftws service`: a built-in application as a SOAP service of its own, to be wrapped like any
//! foreign one, and able to misbehave so that it can be seen to be outvoted.
//!
//! It knows nothing of replicas: virtual time and seed come in HTTP headers (R21), and a caller
//! without them gets this machine's clock. What a call does is decided in `app`.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http::{Counters, Reply, Request, SOAP11, ServeLimits, serve};
use super::process::{self, RunError};
use super::{clock, soap_http};
use crate::app::bank::Bank;
use crate::app::counter::Counter;
use crate::app::echo::Echo;
use crate::app::service::{Operations, SoapService};
use crate::app::{Application, Invocation};
use crate::endpoint::io::ADDRESS_MARK;
use crate::limits;
use crate::soap::envelope::Version;
use crate::types::{Digest, Env, Time};

/// HTTP header that carries virtual time, in decimal microseconds since 1970 (R21).
pub const TIME_HEADER: &str = "BFTWS-Time";
/// HTTP header that carries the seed, in 64 hexadecimal digits (R21).
pub const SEED_HEADER: &str = "BFTWS-Seed";

/// Exit code of a crash that was asked for.
const CRASHED: i32 = 70;

/// Which service, and how it misbehaves.
#[derive(Args, Clone, Debug)]
pub struct ServiceOptions {
    /// What it does; the WSDL at ?wsdl says it in full
    pub kind: Kind,
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Answer wrongly: the same wrong answer at every such service, or another at each port
    #[arg(long)]
    pub lie: Option<Lie>,
    /// Wait so many milliseconds before each answer
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Die in the middle of the call that follows so many answered ones
    #[arg(long)]
    pub crash_after: Option<u64>,
}

/// The built-in services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Gives back the text that it got
    Echo,
    /// One number to be incremented
    Counter,
    /// Accounts, transfers, and faults when there is not enough
    Bank,
}

impl Kind {
    /// Its name, which is also its path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Counter => "counter",
            Self::Bank => "bank",
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Echo, Self::Counter, Self::Bank]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// A new application of that kind, and by how much it lies.
    #[must_use]
    pub fn application(self, lie: Option<i64>) -> Box<dyn Application> {
        match self {
            Self::Echo => application(Echo, lie),
            Self::Counter => application(Counter::default(), lie),
            Self::Bank => application(Bank::default(), lie),
        }
    }

    /// Its WSDL, with a mark where its address goes.
    #[must_use]
    pub fn wsdl(self) -> &'static str {
        match self {
            Self::Echo => include_str!("../../wsdl/echo.wsdl"),
            Self::Counter => include_str!("../../wsdl/counter.wsdl"),
            Self::Bank => include_str!("../../wsdl/bank.wsdl"),
        }
    }
}

/// How a service lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// The same wrong answer at every such service
    Same,
    /// A wrong answer that differs from port to port
    Distinct,
}

/// Runs the service until SIGTERM or SIGINT. The first line on stdout says that it is ready.
///
/// # Errors
/// If the port cannot be had.
pub fn run(options: ServiceOptions) -> Result<(), RunError> {
    process::run(async {
        let stopped = process::stop_on_signal()?;
        let listener = process::listen((Ipv4Addr::LOCALHOST, options.port).into()).await?;
        let local = listener.local_addr()?;
        let kind = options.kind.name();
        let url = format!("http://{local}/{kind}");
        process::ready("service", &kind.into(), &url, None);
        serve_on(listener, options, stopped).await?;
        Ok(())
    })
}

/// Serves a listener until `stopped` turns true; must run within a `LocalSet`.
///
/// # Errors
/// If the listener has no address.
pub async fn serve_on(
    listener: TcpListener,
    options: ServiceOptions,
    stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let service = Rc::new(Service::new(options, listener.local_addr()?));
    let limits = ServeLimits {
        body: limits::CALL_BYTES,
        ..ServeLimits::default()
    };
    serve(
        listener,
        limits,
        Rc::new(Counters::default()),
        stopped,
        move |request| {
            let service = service.clone();
            async move { service.handle(&request).await }
        },
    )
    .await;
    Ok(())
}

/// One running service.
struct Service {
    options: ServiceOptions,
    local: SocketAddr,
    application: RefCell<Box<dyn Application>>,
    /// Calls begun.
    calls: Cell<u64>,
}

impl Service {
    fn new(options: ServiceOptions, local: SocketAddr) -> Self {
        let lie = options.lie.map(|lie| match lie {
            Lie::Same => 1,
            // No two services of one machine share a port.
            Lie::Distinct => 1 + i64::from(local.port()),
        });
        Self {
            application: RefCell::new(options.kind.application(lie)),
            options,
            local,
            calls: Cell::new(0),
        }
    }

    async fn handle(&self, request: &Request) -> Reply {
        let (path, kind) = (request.path(), self.options.kind);
        if path != "/" && path.strip_prefix('/') != Some(kind.name()) {
            return Reply::words(404, format!("the service is at /{}\n", kind.name()));
        }
        if soap_http::asks_for_wsdl(request) {
            let address = soap_http::url_of(request, self.local);
            let wsdl = kind.wsdl().replace(ADDRESS_MARK, &address);
            return Reply::new(200, SOAP11, wsdl);
        }
        if request.method != hyper::Method::POST {
            return Reply::words(405, "POST an envelope, or GET ?wsdl\n");
        }
        match call_of(request) {
            Ok((version, action, env)) => {
                let content_type = request.header("content-type").unwrap_or_default();
                let message = soap_http::message(content_type, &request.body);
                self.call(version, &action, &env, &message).await
            }
            Err(refused) => refused,
        }
    }

    async fn call(&self, version: Version, action: &str, env: &Env, envelope: &[u8]) -> Reply {
        self.calls.set(self.calls.get() + 1);
        if self
            .options
            .crash_after
            .is_some_and(|after| self.calls.get() > after)
        {
            std::process::exit(CRASHED);
        }
        if self.options.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.options.delay_ms)).await;
        }
        let call = Invocation {
            version,
            action,
            envelope,
        };
        let answer = self.application.borrow_mut().execute(&call, env);
        Reply::new(answer.status, version.content_type(), answer.envelope)
    }
}

fn application<O: Operations + 'static>(operations: O, lie: Option<i64>) -> Box<dyn Application> {
    Box::new(match lie {
        None => SoapService::new(operations),
        Some(lie) => SoapService::lying(operations, lie),
    })
}

/// What the HTTP head says of a call.
fn call_of(request: &Request) -> Result<(Version, String, Env), Reply> {
    let (version, action) = soap_http::version_and_action(request)?;
    let wrong = |name: &str| Reply::words(400, format!("the header {name} is wrong\n"));
    let time = match request.header(TIME_HEADER) {
        None => clock::wall(),
        Some(text) => Time(text.parse().map_err(|_| wrong(TIME_HEADER))?),
    };
    let seed = match request.header(SEED_HEADER) {
        None => Digest::default(),
        Some(text) => Digest::from_hex(text).ok_or_else(|| wrong(SEED_HEADER))?,
    };
    Ok((version, action, Env { time, seed }))
}

#[cfg(test)]
mod tests;
