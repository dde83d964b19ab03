//! The command line of bft-ws: what is typed and what is printed. What is done is the library's.

mod bench;
mod call;
mod demo;
mod members;
mod output;
mod sim;

use std::process::ExitCode;

use bft_ws::node::process::RunError;
use bft_ws::node::{fleet, report, service};
use clap::{Parser, Subcommand};
use output::Exit;

/// A SOAP service that answers correctly, or not at all, while some of its replicas crash or lie.
#[derive(Parser)]
#[command(
    name = "bftws",
    version,
    after_help = "\
See it work on this machine:
  bftws demo

Wrap a service that runs four times, and call it through the gateway:
  bftws init --replicas 4 --out group \\
      --service-url http://127.0.0.1:9000/ --service-url http://127.0.0.1:9001/ \\
      --service-url http://127.0.0.1:9002/ --service-url http://127.0.0.1:9003/
  for i in 0 1 2 3; do bftws replica --config group/replica-$i.toml & done
  bftws gateway --config group/gateway.toml &
  curl http://127.0.0.1:7400/?wsdl

Exit codes: 0 done and right, 1 a fault or a failed check, 2 bad configuration or usage,
3 nothing could be sent (no replica reached), 4 outcome unknown."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: a whole group on this machine, its speed, a replica killed, a service lying
    Demo(demo::Demo),
    /// Make the keys of a group and the files of all its members
    Init(members::Init),
    /// Run one replica until SIGTERM
    Replica(members::RunReplica),
    /// Run the gateway, which unmodified SOAP users call, until SIGTERM
    Gateway(members::Run),
    /// Make one call as a native client, and show who answered what
    Call(call::Call),
    /// Show how all processes of a group are
    Status(members::Status),
    /// Measure a group on this machine
    Bench(bench::Bench),
    /// Run a plain SOAP service to be wrapped; it can be told to lie, to dawdle or to crash
    #[command(after_help = "\
The first line on stdout is JSON and says where; SIGTERM or Ctrl-C ends it.
Example: bftws service counter --port 9000   then: curl http://127.0.0.1:9000/counter?wsdl")]
    Service(service::ServiceOptions),
    /// Run groups in the simulator, each drawn from a seed, and check what must hold
    Sim(sim::Sim),
}

fn main() -> ExitCode {
    fleet::bind_to_parent();
    let cli = Cli::parse();
    report::log_to_stderr();
    let done = match cli.command {
        Command::Demo(options) => demo::demo(options),
        Command::Init(options) => members::make(options),
        Command::Replica(options) => members::replica(&options),
        Command::Gateway(options) => members::gateway(&options),
        Command::Call(options) => call::call(&options),
        Command::Status(options) => members::show(&options),
        Command::Bench(options) => bench::bench(options),
        Command::Service(options) => service::run(options).map(|()| Exit::Right),
        Command::Sim(options) => sim::run(&options),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("bftws: {error}");
            match error {
                RunError::System(_) => Exit::Failed.into(),
                _ => Exit::Usage.into(),
            }
        }
    }
}
