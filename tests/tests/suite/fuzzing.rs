//! The fuzz targets on stable: their committed corpus, then inputs of a seeded generator. Counts, not seconds, so that every
//! machine tries the same; they take about ten seconds each where this was written. `make fuzz` goes on with coverage,
//! `make soak` with more of these.

use std::panic::{AssertUnwindSafe, catch_unwind};

use oilskin_tests::fuzz::{Generator, corpus, run};

/// A change makes other inputs: worth one now and then.
const SEED: u64 = 20_260_101;

fn holds(name: &str, cases: usize) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 5, "the corpus of {name} is missing");
    for (path, data) in &corpus {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(name, data)));
        assert!(outcome.is_ok(), "{}", path.display());
    }
    let mut generator = Generator::new(SEED, corpus.iter().map(|(_, data)| data.clone()).collect());
    for case in 0..cases {
        let data = generator.make();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(name, &data)));
        // As a corpus file: printf '…' > tests/fuzz/corpus/TARGET/what-it-is.
        let shown: String = data.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        assert!(outcome.is_ok(), "{name}, generated input {case}: {shown}");
    }
    println!("{name}: {} of the corpus, {cases} generated", corpus.len());
}

#[test]
fn any_certificate_of_a_stranger_is_kept_out_and_says_nothing_in_our_name() {
    holds("certificate", 100_000);
}

#[test]
fn any_configuration_is_read_or_refused_in_words() {
    holds("config", 50_000);
}

#[test]
fn whatever_vault_decrypted_becomes_json_or_nothing() {
    holds("frame", 300_000);
}

#[test]
fn any_answer_of_vault_s_is_one_for_each_item_or_none() {
    holds("vault", 300_000);
}

#[test]
fn any_json_is_rewritten_alike_whatever_the_pieces() {
    holds("json", 300_000);
}

#[test]
fn any_keyset_document_but_the_one_that_was_made_is_refused() {
    holds("keyset", 100_000);
}

#[test]
fn any_selector_that_is_read_means_the_same_again() {
    holds("selector", 300_000);
}

#[test]
fn any_token_but_one_that_was_made_is_refused() {
    holds("token", 300_000);
}
