//! The rules of one phase of a route, compiled.

use std::sync::Arc;

use oilskin_config::{BindPlace, Limits, OnDecryptError, Op, Phase, Rule, Segment, Selector, Step};
use oilskin_crypto::{FieldSpec, KeysetHandle};

use crate::fields::{JsonRule, PathValues, Program};
use crate::keys::Keyrings;
use crate::telemetry::{Metrics, RuleMetrics};

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
    Graphql,
}

/// Everything about a rule that a field asks for.
pub(crate) struct FieldRule {
    pub(crate) spec: FieldSpec,
    pub(crate) keyset: Keyset,
    pub(crate) plaintext_accepted: bool,
    pub(crate) accept_tokens: bool,
    pub(crate) on_decrypt_error: OnDecryptError,
}

/// Which keyset: one, or one for each tenant.
pub(crate) enum Keyset {
    One(KeysetHandle),
    /// The name with `{tenant}` in it, and where to look it up.
    ByTenant(String, Arc<Keyrings>),
}

impl Keyset {
    /// Whether both name the same keyset.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => one.is(other),
            (Self::ByTenant(one, _), Self::ByTenant(other, _)) => one == other,
            _ => false,
        }
    }

    /// Whether it can be used now, for this message's tenant.
    pub(crate) fn is_held(&self, tenant: Option<&str>) -> bool {
        match self {
            Self::One(handle) => handle.check().is_ok(),
            Self::ByTenant(..) => self.handle(tenant).is_some_and(|handle| handle.check().is_ok()),
        }
    }

    /// The handle for this message; none where its tenant makes no keyset's name, or one that does not exist.
    pub(crate) fn handle(&self, tenant: Option<&str>) -> Option<KeysetHandle> {
        match self {
            Self::One(handle) => Some(handle.clone()),
            Self::ByTenant(name, keyrings) => keyrings.handle(&name.replace("{tenant}", tenant?)),
        }
    }
}

impl PhaseRules {
    /// Compiles a phase.
    ///
    /// # Errors
    /// A sentence about its selectors.
    pub(crate) fn build(
        phase: &Phase,
        limits: &Limits,
        keyrings: &Arc<Keyrings>,
        metrics: &Metrics,
    ) -> Result<Self, String> {
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
            })
            .collect();
        let mut compiled: Vec<Compiled> =
            phase.rules.iter().map(|rule| Compiled::field(rule, op, limits, keyrings, metrics)).collect();
        let queries = if op == Op::Encrypt { graphql_queries(&phase.rules) } else { Vec::new() };
        for query in &queries {
            json.push(JsonRule { selector: query, each: false, bind: &[], may_drop: false });
            compiled.push(Compiled {
                name: query.as_str().into(),
                action: Action::Graphql,
                metrics: RuleMetrics::new(metrics, query.as_str(), op),
            });
        }
        let program = Program::compile(&json).map_err(|error| error.to_string())?;
        let top_names = phase
            .rules
            .iter()
            .flat_map(|rule| top_names(&rule.select).map(|name| (name.as_bytes().to_vec(), rule.name.as_str().into())));
        // GraphQL over GET, or in a target: the same values by another road, which no rule reads.
        let graphql = queries
            .first()
            .map(|query| ["query", "variables"].map(|name| (name.as_bytes().to_vec(), query.as_str().into())));
        let active = Active {
            program: Arc::new(program),
            top_names: top_names.chain(graphql.into_iter().flatten()).collect(),
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

    /// Whether any top-level member has a name that a query could repeat.
    pub(crate) fn has_top_names(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !active.top_names.is_empty())
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
    fn field(rule: &Rule, op: Op, limits: &Limits, keyrings: &Arc<Keyrings>, metrics: &Metrics) -> Self {
        let spec = FieldSpec::new(rule.contexts.clone())
            .deterministic(rule.mode == oilskin_config::Mode::Deterministic)
            .binds(!rule.bind.is_empty())
            .pad(rule.pad.map(|pad| pad.get() as usize))
            .unlinkable(rule.unlinkable)
            .max_token(limits.field)
            .depth(limits.depth);
        let keyset = match rule.keyset.contains("{tenant}") {
            true => Keyset::ByTenant(rule.keyset.clone(), Arc::clone(keyrings)),
            false => Keyset::One(keyrings.expected(&rule.keyset)),
        };
        Self {
            name: rule.name.as_str().into(),
            metrics: RuleMetrics::new(metrics, &rule.name, op),
            action: Action::Field(Box::new(FieldRule {
                spec,
                keyset,
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

/// Where the query stands beside protected variables: `$.query`, and `$[*].query` where requests are batched.
fn graphql_queries(rules: &[Rule]) -> Vec<Selector> {
    let names_variables =
        |segment: &Segment| segment.steps().iter().any(|step| matches!(step, Step::Name(name) if name == "variables"));
    let graphql = rules.iter().any(|rule| rule.select.segments().iter().take(2).any(names_variables));
    let queries: &[&str] = if graphql { &["$.query", "$[*].query"] } else { &[] };
    queries.iter().filter_map(|query| Selector::parse(query).ok()).collect()
}
