//! The rules of one phase of a route, compiled.

use std::num::NonZeroU32;
use std::sync::Arc;

use oilskin_config::{Backend, BindPlace, Limits, OnDecryptError, Op, Phase, Rule, Segment, Selector, Step};
use oilskin_crypto::{FieldSpec, Frame};

use crate::fields::{JsonRule, PathValues, Program};
use crate::keys::{Entry, Keyrings};
use crate::telemetry::{Metrics, RuleMetrics};
use crate::transit::{Key, Keys};

/// Where the keys of rules are.
pub(crate) struct Homes {
    pub(crate) keyrings: Arc<Keyrings>,
    /// Keys of Vault's.
    pub(crate) transit: Arc<Keys>,
}

impl Homes {
    pub(crate) fn new(keyrings: Arc<Keyrings>) -> Self {
        Self { keyrings, transit: Arc::default() }
    }
}

/// What one phase of a route does with bodies.
pub(crate) struct PhaseRules {
    op: Op,
    active: Option<Active>,
}

struct Active {
    program: Arc<Program>,
    rules: Arc<[Compiled]>,
    /// Names that a query may not repeat while encrypting, decoded, each with its rule.
    top_names: Vec<(Vec<u8>, Arc<str>)>,
    /// Whether a query that looks like GraphQL is looked into.
    graphql_in_queries: bool,
    /// Path parameters that rules bind to.
    path_names: Vec<String>,
}

/// One rule, ready for the data path.
pub(crate) struct Compiled {
    pub(crate) name: Arc<str>,
    pub(crate) action: Action,
    pub(crate) metrics: RuleMetrics,
}

/// What is done with a selected value.
pub(crate) enum Action {
    Field(Box<FieldRule>),
    /// A GraphQL query on a route with rules on its variables: passes only without literals.
    Graphql {
        /// The rules may mean other documents: what does not look like a query is none.
        only_if_it_looks_so: bool,
    },
    /// Variables that the rules do not reach: those of batched requests.
    GraphqlBatch,
}

/// Everything about a rule that a field asks for.
pub(crate) struct FieldRule {
    pub(crate) spec: FieldSpec,
    /// Where local keys write or read it.
    pub(crate) keyset: Option<Keyset>,
    pub(crate) reads_local: bool,
    /// Where Vault does.
    pub(crate) vault: Option<Transit>,
    pub(crate) plaintext_accepted: bool,
    pub(crate) accept_tokens: bool,
    pub(crate) on_decrypt_error: OnDecryptError,
}

/// What a rule says of Vault's part in it.
pub(crate) struct Transit {
    pub(crate) key: Arc<Key>,
    pub(crate) frame: Frame,
    /// The version that is written with; none is the latest.
    pub(crate) version: Option<NonZeroU32>,
    pub(crate) deterministic: bool,
    pub(crate) writes: bool,
    pub(crate) reads: bool,
}

impl Transit {
    fn of(rule: &Rule, keys: &Keys) -> Option<Self> {
        let deterministic = rule.mode == oilskin_config::Mode::Deterministic;
        let name = rule.vault_key()?;
        let is_vault = |backend: &Backend| *backend != Backend::Local;
        let (key, writes) = (keys.expected(name, deterministic), is_vault(&rule.encrypt));
        if let Some(version) = rule.key_version.filter(|_| writes) {
            key.pin(version);
        }
        Some(Self {
            key,
            frame: match rule.frame {
                oilskin_config::Frame::Typed => Frame::Typed,
                oilskin_config::Frame::Bare => Frame::Bare,
            },
            version: rule.key_version,
            deterministic,
            writes,
            reads: rule.decrypt.iter().any(is_vault),
        })
    }
}

impl FieldRule {
    /// Vault, where it writes.
    pub(crate) fn vault_writes(&self) -> Option<&Transit> {
        self.vault.as_ref().filter(|vault| vault.writes)
    }

    /// Vault, where it reads.
    pub(crate) fn vault_reads(&self) -> Option<&Transit> {
        self.vault.as_ref().filter(|vault| vault.reads)
    }

    /// Whether nothing of this rule can be done now; says why. Where both may read, each field tells.
    pub(crate) fn lacks(&self, op: Op, tenant: Option<&str>, before: Option<&Keyset>) -> Option<&'static str> {
        let vault = match op {
            Op::Encrypt => self.vault_writes(),
            Op::Decrypt if self.reads_local && self.vault_reads().is_some() => return None,
            Op::Decrypt => self.vault_reads(),
        };
        match (vault, &self.keyset) {
            (Some(vault), _) => (!vault.key.fits(vault.deterministic)).then_some("vault_key"),
            // Rules of one keyset usually follow each other: one look for all of them.
            (None, Some(keyset)) if before.is_some_and(|before| before.is(keyset)) => None,
            (None, Some(keyset)) => (!keyset.gives(op, tenant)).then_some("keyset"),
            (None, None) => Some("keyset"),
        }
    }
}

/// Which keyset: one, or one for each tenant.
pub(crate) enum Keyset {
    One(Arc<Entry>),
    /// The name with `{tenant}` in it, and where to look it up.
    ByTenant(String, Arc<Keyrings>),
}

impl Keyset {
    /// Whether both name the same keyset.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => Arc::ptr_eq(one, other),
            (Self::ByTenant(one, _), Self::ByTenant(other, _)) => one == other,
            _ => false,
        }
    }

    /// Whether it can be used now as `op` needs it, for this message's tenant.
    pub(crate) fn gives(&self, op: Op, tenant: Option<&str>) -> bool {
        let gives = |entry: &Entry| entry.handle().gives(op == Op::Encrypt);
        match self {
            Self::One(entry) => gives(entry),
            Self::ByTenant(..) => self.entry(tenant).is_some_and(|entry| gives(&entry)),
        }
    }

    /// Its name with `{tenant}` in it; none where it is the same for all.
    pub(crate) fn template(&self) -> Option<&str> {
        match self {
            Self::One(_) => None,
            Self::ByTenant(name, _) => Some(name),
        }
    }

    /// The keyset for this message; none where its tenant makes no keyset's name, or there is no room for it.
    pub(crate) fn entry(&self, tenant: Option<&str>) -> Option<Arc<Entry>> {
        match self {
            Self::One(entry) => Some(Arc::clone(entry)),
            Self::ByTenant(name, keyrings) => keyrings.tenant(&name.replace("{tenant}", tenant?)),
        }
    }
}

impl PhaseRules {
    /// Compiles a phase.
    ///
    /// # Errors
    /// A sentence about its selectors.
    pub(crate) fn build(phase: &Phase, limits: &Limits, homes: &Homes, metrics: &Metrics) -> Result<Self, String> {
        let op = phase.op;
        if phase.rules.is_empty() {
            return Ok(Self { op, active: None });
        }
        let mut json: Vec<JsonRule<'_>> = phase
            .rules
            .iter()
            .map(|rule| JsonRule {
                selector: &rule.select,
                each: rule.each,
                bind: &rule.bind,
                may_drop: op == Op::Decrypt && rule.on_decrypt_error == OnDecryptError::Drop,
                scalars: false,
            })
            .collect();
        let mut compiled: Vec<Compiled> =
            phase.rules.iter().map(|rule| Compiled::field(rule, op, limits, homes, metrics)).collect();
        let graphql = Graphql::of(&phase.rules).filter(|_| op == Op::Encrypt);
        let queries = graphql.map(|graphql| graphql.selected(&phase.rules)).unwrap_or_default();
        json.extend(queries.iter().map(|(select, action)| JsonRule {
            selector: select,
            each: false,
            bind: &[],
            may_drop: false,
            // What is no text is no query, and rules go on inside.
            scalars: matches!(action, Action::Graphql { .. }),
        }));
        let program = Program::compile(&json).map_err(|error| error.to_string())?;
        compiled.extend(queries.into_iter().map(|(select, action)| Compiled {
            name: select.as_str().into(),
            metrics: RuleMetrics::new(metrics, select.as_str(), op),
            action,
        }));
        let top_names = phase
            .rules
            .iter()
            .flat_map(|rule| top_names(&rule.select).map(|name| (name.as_bytes().to_vec(), rule.name.as_str().into())));
        // GraphQL over GET, or in a target: the same values by another road, which no rule reads.
        let named = graphql == Some(Graphql::Named);
        let graphql_names =
            named.then(|| ["query", "variables"].map(|name| (name.as_bytes().to_vec(), Arc::from("$.query"))));
        let active = Active {
            program: Arc::new(program),
            top_names: top_names.chain(graphql_names.into_iter().flatten()).collect(),
            graphql_in_queries: graphql == Some(Graphql::Reached),
            path_names: path_names(&phase.rules),
            rules: compiled.into(),
        };
        Ok(Self { op, active: Some(active) })
    }

    /// Whether bodies are rewritten at all.
    pub(crate) fn active(&self) -> bool {
        self.active.is_some()
    }

    /// Whether they are, by encrypting.
    pub(crate) fn encrypts(&self) -> bool {
        self.active.is_some() && self.op == Op::Encrypt
    }

    pub(crate) fn op(&self) -> Op {
        self.op
    }

    pub(crate) fn program(&self) -> Option<&Arc<Program>> {
        self.active.as_ref().map(|active| &active.program)
    }

    pub(crate) fn rules(&self) -> Option<&Arc<[Compiled]>> {
        self.active.as_ref().map(|active| &active.rules)
    }

    /// The rule whose protected top-level member has this name.
    pub(crate) fn top_name(&self, name: &[u8]) -> Option<&Arc<str>> {
        let names = self.active.as_ref().map(|active| active.top_names.as_slice()).unwrap_or_default();
        names.iter().find(|(top, _)| top == name).map(|(_, rule)| rule)
    }

    /// Whether any top-level member has a name that a query could repeat, or a query may hold GraphQL.
    pub(crate) fn looks_at_queries(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !active.top_names.is_empty() || active.graphql_in_queries)
    }

    /// Whether a query that looks like GraphQL is looked into.
    pub(crate) fn graphql_in_queries(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.graphql_in_queries)
    }

    /// Waits, not for long, for the keysets that this message needs and that are being fetched.
    pub(crate) async fn loaded(&self, tenant: Option<&str>) {
        let rules = self.active.as_ref().map(|active| Arc::clone(&active.rules));
        for rule in rules.iter().flat_map(|rules| rules.iter()) {
            let Action::Field(field) = &rule.action else { continue };
            if let Some(keyset) = &field.keyset
                && !keyset.gives(self.op, tenant)
                && let Some(entry) = keyset.entry(tenant)
            {
                entry.loaded().await;
            }
        }
    }

    /// The parameters of the path that rules bind to.
    pub(crate) fn path_values(&self, names: &[String], values: &[Vec<u8>]) -> PathValues {
        let Some(active) = self.active.as_ref().filter(|active| !active.path_names.is_empty()) else {
            return PathValues::default();
        };
        let bound = names.iter().zip(values).filter(|(name, _)| active.path_names.contains(name));
        PathValues(bound.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

impl Compiled {
    fn field(rule: &Rule, op: Op, limits: &Limits, homes: &Homes, metrics: &Metrics) -> Self {
        let spec = FieldSpec::new(rule.contexts.clone())
            .deterministic(rule.mode == oilskin_config::Mode::Deterministic)
            .binds(!rule.bind.is_empty())
            .pad(rule.pad.map(|pad| pad.get() as usize))
            .unlinkable(rule.unlinkable)
            .max_token(limits.field)
            .depth(limits.depth);
        let keyset = rule.is_local().then(|| match rule.keyset.contains("{tenant}") {
            true => Keyset::ByTenant(rule.keyset.clone(), Arc::clone(&homes.keyrings)),
            false => Keyset::One(homes.keyrings.expected(&rule.keyset)),
        });
        Self {
            name: rule.name.as_str().into(),
            metrics: RuleMetrics::new(metrics, &rule.name, op),
            action: Action::Field(Box::new(FieldRule {
                spec,
                keyset,
                reads_local: rule.decrypt.contains(&Backend::Local),
                vault: Transit::of(rule, &homes.transit),
                plaintext_accepted: rule.plaintext_accepted,
                accept_tokens: rule.accept_tokens,
                on_decrypt_error: rule.on_decrypt_error,
            })),
        }
    }
}

/// The names that a selector picks right below the document: `$.ssn`, `$['a','b']` and `$..ssn` have some.
fn top_names(selector: &Selector) -> impl Iterator<Item = &str> {
    let steps: &[Step] = match selector.segments() {
        [segment] => segment.steps(),
        _ => &[],
    };
    steps.iter().filter_map(|step| match step {
        Step::Name(name) => Some(name.as_str()),
        _ => None,
    })
}

fn path_names(rules: &[Rule]) -> Vec<String> {
    let places = rules.iter().flat_map(|rule| &rule.bind).flat_map(|bind| &bind.places);
    places
        .filter_map(|place| match place {
            BindPlace::Path(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

/// Whether rules protect variables of GraphQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Graphql {
    /// A rule names them: every document of this phase is taken for GraphQL.
    Named,
    /// Rules may reach them: what looks like GraphQL is.
    Reached,
}

impl Graphql {
    fn of(rules: &[Rule]) -> Option<Self> {
        let names = |segment: &Segment| {
            segment.steps().iter().any(|step| matches!(step, Step::Name(name) if name == "variables"))
        };
        if rules.iter().any(|rule| rule.select.segments().iter().take(2).any(names)) {
            return Some(Self::Named);
        }
        let reaches =
            |rule: &Rule| rule.select.reaches(&[Some("variables")]) || rule.select.reaches(&[None, Some("variables")]);
        rules.iter().any(reaches).then_some(Self::Reached)
    }

    /// What is looked at beside the rules: `$.query`, and `$[*].query` where requests are batched; and the variables of
    /// batches, where no rule reaches them.
    fn selected(self, rules: &[Rule]) -> Vec<(Selector, Action)> {
        let selector = |text: &str| Selector::parse(text).ok();
        let query =
            |text: &str| Some((selector(text)?, Action::Graphql { only_if_it_looks_so: self == Self::Reached }));
        let mut all: Vec<_> = ["$.query", "$[*].query"].into_iter().filter_map(query).collect();
        if self == Self::Named && !rules.iter().any(|rule| rule.select.reaches(&[None, Some("variables")])) {
            all.extend(selector("$[*].variables").map(|variables| (variables, Action::GraphqlBatch)));
        }
        all
    }
}
