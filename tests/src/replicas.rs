//! Many replicas on one key store: each writes tokens that all others read, while keys rotate.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::process::Process;
use crate::tools::{self, Killed};
use crate::upstream::{Upstream, respond};

/// Where keys of a run are: the variables that all of its processes have.
pub type Vars = Vec<(String, String)>;

/// What all replicas have in common besides.
const COMMON: &[(&str, &str)] = &[
    ("OILSKIN_KEY_REFRESH", "1s"),
    ("OILSKIN_KEY_ROOT_CHECK", "5s"),
    ("OILSKIN_FIELDS", "$.ssn"),
    ("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true"),
    ("OILSKIN_ADMIN_LISTEN", "off"),
];

/// Anything that encrypts and decrypts.
pub trait Replica: Send {
    /// A token, or what was said instead.
    fn encrypt(&mut self, text: &str) -> Result<String, String>;
    /// What a token holds, or what was said instead.
    fn decrypt(&mut self, token: &str) -> Result<String, String>;
}

/// The key life alone, as a process.
pub struct Light {
    child: Killed,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Light {
    /// Starts one.
    pub fn start(program: &Path, vars: &Vars) -> Self {
        let mut command = Command::new(program);
        command.envs(COMMON.iter().copied()).envs(vars.iter().cloned()).env("OILSKIN_UPSTREAM", "http://127.0.0.1:1");
        let mut child = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let (words, answers) = (child.0.stdin.take().unwrap(), BufReader::new(child.0.stdout.take().unwrap()));
        let mut this = Self { child, words, answers };
        assert_eq!(this.read(), "ready");
        this
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, word: char, text: &str, good: &str) -> Result<String, String> {
        writeln!(self.words, "{word} {text}").unwrap();
        let answer = self.read();
        answer.strip_prefix(good).map(str::to_owned).ok_or(answer)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }
}

impl Replica for Light {
    fn encrypt(&mut self, text: &str) -> Result<String, String> {
        self.ask('e', text, "t ")
    }

    fn decrypt(&mut self, token: &str) -> Result<String, String> {
        self.ask('d', token, "v ")
    }
}

/// The whole proxy, before an upstream that answers the token which a field of the request's head holds, or what it got.
pub struct Full {
    /// The process.
    pub process: Process,
    upstream: Upstream,
    client: Client,
}

impl Full {
    /// Starts one.
    pub fn start(vars: &Vars) -> Self {
        let upstream = Upstream::scripted(|request, stream| {
            let body = match request.header("x-token") {
                Some(token) => format!("{{\"ssn\":\"{token}\"}}").into_bytes(),
                None => request.body.clone(),
            };
            respond(stream, "200 OK", &[("Content-Type", "application/json")], &body)
        });
        let mut command = tools::oilskin();
        command.envs(COMMON.iter().copied()).envs(vars.iter().cloned()).env("OILSKIN_LOG_FORMAT", "json");
        let process = Process::start_as(command, &[("OILSKIN_UPSTREAM", &upstream.url())]);
        tools::until("keys", || process.ready().contains("true").then_some(()));
        let client = Client::connect(process.address());
        Self { process, upstream, client }
    }
}

impl Replica for Full {
    fn encrypt(&mut self, text: &str) -> Result<String, String> {
        let document = format!("{{\"ssn\":\"{text}\"}}");
        let fields = [("Content-Type", "application/json")];
        let answer = self.client.request("POST", "/", &fields, document.as_bytes());
        match answer.status() {
            200 => {
                let seen = self.upstream.seen().last().unwrap().text();
                Ok(seen.split('"').nth(3).unwrap().to_owned())
            }
            status => Err(format!("{status} {}", answer.code())),
        }
    }

    fn decrypt(&mut self, token: &str) -> Result<String, String> {
        let answer = self.client.request("GET", "/", &[("X-Token", token)], b"");
        match answer.status() {
            200 => Ok(answer.text().split('"').nth(3).unwrap().to_owned()),
            status => Err(format!("{status} {}", answer.code())),
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// Tokens written.
    pub written: usize,
    /// Tokens read.
    pub read: usize,
    /// Rotations that were asked for.
    pub rotations: usize,
}

/// `program` is the light replica's. Lets replicas write and read one another's tokens for that long while several `oilskin keys rotate` at once do what they can.
/// Panics at the first token that does not open.
pub fn run(program: &Path, vars: &Vars, light: usize, full: usize, length: Duration) -> Run {
    let mut replicas: Vec<Box<dyn Replica>> = Vec::new();
    replicas.extend((0..light).map(|_| Box::new(Light::start(program, vars)) as Box<dyn Replica>));
    replicas.extend((0..full).map(|_| Box::new(Full::start(vars)) as Box<dyn Replica>));
    let tokens: Mutex<Vec<String>> = Mutex::default();
    let (stop, read, rotations) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for (number, mut replica) in replicas.into_iter().enumerate() {
            let (tokens, stop, read, wrong) = (&tokens, &stop, &read, &wrong);
            scope.spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let begun = Instant::now();
                    let text = format!("{number}-{turn}");
                    let outcome = replica.encrypt(&text).and_then(|token| {
                        tokens.lock().unwrap().push(token);
                        // The newest ones above all, and any of the others.
                        let chosen: Vec<String> = {
                            let tokens = tokens.lock().unwrap();
                            let any = (number * 7_919 + turn * 104_729) % tokens.len();
                            [tokens.len() - 1, tokens.len().saturating_sub(3), any].map(|at| tokens[at].clone()).into()
                        };
                        chosen.iter().try_for_each(|token| {
                            read.fetch_add(1, Ordering::Relaxed);
                            replica.decrypt(token).map(|_| ())
                        })
                    });
                    if let Err(said) = outcome {
                        wrong.lock().unwrap().push(format!("replica {number}, turn {turn}: {said}"));
                        return;
                    }
                    tools::pause(Duration::from_millis(150).saturating_sub(begun.elapsed()));
                }
            });
        }
        for number in 0..3_u64 {
            let (stop, rotations, wrong) = (&stop, &rotations, &wrong);
            scope.spawn(move || {
                tools::pause(Duration::from_millis(300 * number));
                while !stop.load(Ordering::Relaxed) {
                    let mut command = tools::oilskin();
                    command.args(["keys", "rotate"]).envs(COMMON.iter().copied()).envs(vars.iter().cloned());
                    let output = command.output().unwrap();
                    if !output.status.success() {
                        wrong.lock().unwrap().push(String::from_utf8_lossy(&output.stderr).into_owned());
                        return;
                    }
                    rotations.fetch_add(1, Ordering::Relaxed);
                    tools::pause(Duration::from_millis(200 * number + 50));
                }
            });
        }
        let end = Instant::now() + length;
        while Instant::now() < end && wrong.lock().unwrap().is_empty() {
            tools::pause(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    Run { written: tokens.into_inner().unwrap().len(), read: read.into_inner(), rotations: rotations.into_inner() }
}
