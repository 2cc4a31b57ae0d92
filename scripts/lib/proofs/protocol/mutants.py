"""The mutants of the bounded judge, kernel/mmu-model, and of the engine's schedules on it: each has its counterpart here, or a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import ScriptError
from ...paths import ROOT

MAP = "begin_map allocate zero link load_path store_leaf publish isb_of_publish"
GROUP = MAP.replace("store_leaf", "store_leaf store_leaf")
"""Of two addresses, a group or not."""
BLOCK = "begin_map load_path store_block publish isb_of_publish"
HELD = " walk hold"
WIDE = " walk hold_wide"
REST = " lead issue complete isb free"
UNMAP = " begin_unmap break_leaf" + REST
WHOLE = " begin_unmap unlink" + REST
LAZY = " begin_unmap break_leaf defer take lead_for_others issue complete isb free"
MADE = " store_leaf load_path publish isb_of_publish"
REPLACE = " begin_replace break_leaf lead issue complete make" + MADE
PROTECT = " begin_protect change_leaf lead_of_change issue complete isb end_protect"
NEW_TABLE = " allocate zero link store_leaf"

RIGHT = {
    "map": MAP + HELD,
    "map below what another has linked": "allocate zero link_by_another begin_map load_path store_leaf publish isb_of_publish" + HELD,
    "map a group": GROUP + WIDE,
    "map a block": BLOCK + " hold_wide",
    "unmap": MAP + HELD + " look_ahead" + UNMAP,
    "unmap a table": MAP + HELD + WHOLE,
    "unmap a block": BLOCK + " hold_wide begin_unmap break_block" + REST,
    "unmap lazily": MAP + HELD + LAZY,
    "replace": MAP + HELD + REPLACE,
    "replace a table": GROUP + HELD + " begin_replace unlink lead issue complete make load_path store_block publish isb_of_publish",
    "protect": MAP + HELD + PROTECT,
    "protect a block": BLOCK + " hold_wide begin_protect change_block lead_of_change issue complete isb end_protect",
    "give back": "allocate give_back",
    "others": "other_release other_dsb_ishst other_dsb_ish other_isb other_tlbi becomes_visible",
    "fetch and evict": MAP + HELD + " fetch evict",
}
"""Right operations. Every step is in one of them."""

BROKEN = {
    "no DSB before the TLBI": MAP + HELD + UNMAP.replace("lead", "no_lead"),
    "no TLBI": MAP + HELD + UNMAP.replace("issue", "no_tlbi"),
    "no DSB behind the TLBI": MAP + HELD + UNMAP.replace("complete", "no_dsb"),
    "DSB ISHST behind the TLBI": MAP + HELD + UNMAP.replace("complete", "complete_ishst"),
    "no ISB": MAP + HELD + UNMAP.replace("lead", "look_ahead lead").replace(" isb", " no_isb"),
    "ISB before the DSB": MAP + HELD + UNMAP.replace("complete isb", "isb_before_the_dsb look_ahead complete no_isb"),
    "TLBI for the neighbour": MAP + HELD + UNMAP.replace("issue", "issue_for_the_neighbour"),
    "TLBI for one of several addresses": GROUP + HELD + UNMAP.replace("break_leaf", "break_leaf break_leaf").replace("issue", "issue_for_one_address"),
    "local TLBI": MAP + HELD + UNMAP.replace("complete", "complete_here_only"),
    "no ISB behind a map": MAP.replace("publish isb_of_publish", "look_ahead publish publish_without_isb"),
    "no DSB behind a map": MAP.replace("publish isb_of_publish", "publish_without_dsb isb_of_publish look_ahead"),
    "an acquire that is no ISB, of a map": MAP.replace("begin_map", "look_ahead begin_map") + " other_release told_without_isb",
    "an acquire that is no ISB, of code": MAP + HELD + " fetch" + UNMAP + " other_release told_without_isb",
    "other frames in place": MAP + HELD + PROTECT.replace("begin_protect", "begin_protect_of_other_frames").replace("lead_of_change", "lead_of_change hold"),
    "another size in place": BLOCK + " hold_wide begin_replace break_block make_in_place" + " allocate zero link store_leaf store_leaf load_path publish walk hold",
    "a block over a table in place": GROUP + HELD + " begin_replace unlink make_in_place load_path store_block publish hold_wide",
    "another table where one was cut off": GROUP + HELD + " begin_replace unlink make_in_place allocate zero link store_leaf store_leaf load_path publish walk hold",
    "replaced without the first DSB": MAP + HELD + REPLACE.replace(" lead", " no_lead"),
    "replaced without the TLBI": MAP + HELD + REPLACE.replace("issue", "no_tlbi"),
    "replaced without the second DSB": MAP + HELD + REPLACE.replace("complete", "no_dsb"),
    "replaced with a TLBI for one of several addresses": GROUP
    + HELD
    + REPLACE.replace("break_leaf", "break_leaf break_leaf").replace("store_leaf", "store_leaf store_leaf").replace("issue", "issue_for_one_address"),
    "protected without the TLBI": MAP + HELD + PROTECT.replace("issue", "no_tlbi"),
    "protected in part": GROUP + WIDE + PROTECT.replace("begin_protect", "begin_protect_of_a_part"),
    "unmapped in part": GROUP + WIDE + UNMAP.replace("begin_unmap", "begin_unmap_of_a_part"),
    "a mixed group": GROUP.replace("begin_map", "begin_map_of_a_mixed_group") + WIDE,
    "a group that is not whole": GROUP.replace("store_leaf store_leaf", "store_leaf").replace(" publish", " publish_a_part") + " walk look_ahead",
    "a member that is not in the group": MAP.replace("begin_map", "begin_map_of_a_mixed_group") + WIDE,
    "lazily, no DSB before the TLBI": MAP + HELD + LAZY.replace("lead_for_others", "no_lead_for_others"),
    "lazily, DSB ISHST before the TLBI": MAP + HELD + LAZY.replace("lead_for_others", "lead_for_others_ishst"),
    "lazily, no acquire": MAP + HELD + LAZY.replace("take", "take_without_acquire"),
    "lazily, a DSB of the storer alone": MAP + HELD + LAZY.replace("take lead_for_others", "dsb_of_the_storer take no_lead_for_others"),
    "lazily, no TLBI": MAP + HELD + LAZY.replace("issue", "no_tlbi"),
    "lazily, local TLBI": MAP + HELD + LAZY.replace("complete", "complete_here_only"),
    "lazily, no DSB behind the TLBI": MAP + HELD + LAZY.replace("complete", "no_dsb"),
    "a table linked before its zeroes are visible": MAP.replace(" link", " link_plainly walk hold"),
    "a table that another has zeroed": MAP.replace(" link", " link_what_another_has_zeroed") + HELD,
    "a link to what is no table": MAP.replace("zero link", "link_what_is_no_table") + HELD,
    "a table freed after a TLBI of the last level": MAP + HELD + WHOLE.replace("issue", "issue_last_level"),
    "what comes back after a TLBI of the last level": MAP + " walk" + WHOLE.replace("issue", "issue_last_level").replace("complete", "complete hold"),
    "a table freed before the DSB": MAP + HELD + " begin_unmap unlink lead issue free_before_the_dsb",
    "a table freed without a TLBI": MAP + HELD + WHOLE.replace("issue", "no_tlbi"),
    "a table freed before the flush": MAP + HELD + " begin_unmap unlink free_before_the_flush",
    "a table freed while it is linked": MAP + HELD + " free_while_linked",
    "a table freed after a local TLBI": MAP + HELD + WHOLE.replace("complete", "complete_here_only"),
    "a table freed after a TLBI of other addresses": MAP + HELD + WHOLE.replace("issue", "issue_for_the_neighbour"),
    "a page of a table that was cut off": GROUP + HELD + WHOLE.replace("issue", "issue_for_one_address"),
    "frames freed before the flush": MAP + HELD + " begin_unmap break_leaf free_before_the_flush",
    "mapped below a link that is not complete": "allocate zero link_by_another begin_map store_leaf publish_without_the_path isb_of_publish look_ahead",
}
"""Of each mutant of the protocol, a script that ends with a broken promise."""

MEMORY_TYPES = "memory types and cacheability of aliases are not of this protocol; the judge has physical memory"
ENCODING = "of encodings: the proofs of the machine code have operands, descriptors and alignment"
OWN_RULE = "of the engine's bookkeeping, or of several ranges: here is one range below one root"
WINDOWS = "of the words that a fault handler reads: loom has them (arch-policy), and a litmus test"
POLICY = "of CPUs that tolerate a change of size: here none does"
SPARE = "no mutant: a helper, or a search that expects nothing"

COUNTERPARTS: dict[str, str] = {
    # break_before_make.rs
    "memory_type_shareability_and_ng_may_not_change_in_place": "other frames in place",
    "a_block_replaced_by_a_table_in_place_is_a_conflict": "another size in place",
    "but_never_other_pages": "other frames in place",
    "a_block_over_pages_of_which_one_was_not_invalidated_is_a_conflict": "replaced with a TLBI for one of several addresses",
    "a_block_where_an_empty_table_was_cut_off_and_not_invalidated_is_a_conflict": "a block over a table in place",
    "an_empty_table_where_a_block_was_taken_out_and_not_invalidated_is_a_conflict": "another size in place",
    "a_table_replaced_by_a_block_in_place_is_a_conflict": "a block over a table in place",
    "another_table_in_place_is_a_conflict_even_if_it_maps_the_same": "another table where one was cut off",
    "row_4_another_output_address_in_place_is_unsound_even_with_a_tlbi_after": "other frames in place",
    # groups.rs
    "a_group_with_a_member_missing_at_the_dsb_is_mixed": "a group that is not whole",
    "a_group_whose_frames_are_not_consecutive_is_mixed": "a mixed group",
    "a_member_of_another_memory_type_makes_the_group_mixed": "a mixed group",
    "a_single_page_beside_members_of_a_live_group_is_mixed": "a mixed group",
    "permissions_of_part_of_a_group_may_not": "protected in part",
    "taking_one_member_out_of_a_live_group_leaves_it_mixed": "unmapped in part",
    "breaking_a_group_with_one_tlbi_leaves_the_other_members_held": "TLBI for one of several addresses",
    "a_member_that_was_never_written_is_reachable_by_the_entry_for_the_group": "a member that is not in the group",
    "a_group_over_pages_that_may_still_be_held_is_a_conflict": "replaced without the TLBI",
    "single_pages_over_a_group_held_as_one_entry_are_a_conflict": "replaced without the TLBI",
    "setting_the_contiguous_bit_on_live_pages_is_a_conflict": "other frames in place",
    "a_group_half_folded_in_place_is_mixed_even_then": "protected in part",
    "tolerating_a_size_change_does_not_tolerate_other_frames": "other frames in place",
    "a_range_tlbi_one_unit_short_leaves_the_last_two_members": "TLBI for one of several addresses",
    # lazy_purge.rs, and row 7
    "without_the_leading_dsb_ish_some_interleaving_uses_a_frame_too_early": "lazily, no DSB before the TLBI",
    "a_leading_dsb_ishst_does_not_wait_for_the_unmappers_store": "lazily, DSB ISHST before the TLBI",
    "without_the_tlbi_some_interleaving_uses_a_frame_too_early": "lazily, no TLBI",
    "a_local_tlbi_leaves_the_other_cpus_entries": "lazily, local TLBI",
    "without_the_trailing_dsb_ish_some_interleaving_uses_a_frame_too_early": "lazily, no DSB behind the TLBI",
    "a_list_that_is_taken_without_acquire_tells_the_purger_nothing": "lazily, no acquire",
    "a_dsb_of_the_unmapper_is_neither_needed_nor_enough": "lazily, a DSB of the storer alone",
    "row_7_without_the_purgers_leading_dsb_it_may_hit": "lazily, no DSB before the TLBI",
    "row_7_a_leading_dsb_ishst_of_the_purger_does_not_cover_the_storers_store": "lazily, DSB ISHST before the TLBI",
    "row_7_without_acquire_the_purger_knows_nothing_of_the_store": "lazily, no acquire",
    "row_7_a_dsb_of_the_storer_does_not_order_the_purgers_tlbi": "lazily, a DSB of the storer alone",
    "row_7_what_the_storer_did_after_the_release_is_not_acquired": "lazily, no acquire",
    # sequence_table.rs
    "row_1_without_the_leading_dsb_may_hit": "no DSB before the TLBI",
    "row_1_without_the_tlbi_may_hit": "no TLBI",
    "row_1_without_the_trailing_dsb_may_hit": "no DSB behind the TLBI",
    "row_1_without_the_isb_may_hit_on_the_same_cpu": "no ISB",
    "row_1_with_dsb_ishst_in_place_of_the_trailing_dsb_ish_may_hit": "DSB ISHST behind the TLBI",
    "row_1_with_the_isb_before_the_trailing_dsb_may_hit": "ISB before the DSB",
    "row_1_with_a_tlbi_for_the_neighbour_may_hit": "TLBI for the neighbour",
    "row_2_after_a_local_tlbi_the_other_cpu_may_hit": "local TLBI",
    "row_2_after_no_tlbi_the_other_cpu_may_hit": "no TLBI",
    "row_3_without_the_isb_it_may_fault": "no ISB behind a map",
    "row_3_without_the_dsb_it_may_fault_on_every_cpu": "no DSB behind a map",
    "row_3_a_handler_that_retries_needs_no_isb": "an acquire that is no ISB, of a map",
    "row_5_without_the_first_dsb_is_unsound": "replaced without the first DSB",
    "row_5_without_the_tlbi_is_unsound": "replaced without the TLBI",
    "row_5_without_the_second_dsb_is_unsound": "replaced without the second DSB",
    "row_6_read_only_in_place_without_the_tlbi_may_still_write": "protected without the TLBI",
    "writable_in_place_without_the_tlbi_may_still_fault": "protected without the TLBI",
    "an_instruction_fetched_by_another_cpu_outlives_the_tlbi_until_its_isb": "an acquire that is no ISB, of code",
    # tables.rs
    "a_table_linked_by_a_plain_store_needs_a_dsb_after_its_zeroing": "a table linked before its zeroes are visible",
    "a_private_subtree_is_judged_when_its_top_is_linked": "a table linked before its zeroes are visible",
    "zeroed_by_one_cpu_and_linked_by_another_needs_a_hand_over": "a table that another has zeroed",
    "a_table_freed_after_a_last_level_tlbi_is_reused_too_early": "a table freed after a TLBI of the last level",
    "a_table_freed_before_the_trailing_dsb_is_reused_too_early": "a table freed before the DSB",
    "a_table_freed_without_any_tlbi_is_reused_too_early": "a table freed without a TLBI",
    "a_table_freed_while_it_is_linked_is_an_error": "a table freed while it is linked",
    "a_local_tlbi_does_not_free_a_table_for_all": "a table freed after a local TLBI",
    "tables_below_an_unlinked_one_need_a_tlbi_of_their_own_span": "a table freed after a TLBI of other addresses",
    "what_a_held_link_leads_to_comes_back_after_a_last_level_tlbi": "what comes back after a TLBI of the last level",
    "a_page_of_a_table_that_was_cut_off_is_reachable_until_its_own_tlbi": "a page of a table that was cut off",
    "no_other_table_comes_where_one_was_cut_off_before_the_flush": "another table where one was cut off",
    "a_table_moved_to_another_place_must_be_out_of_every_walk_cache": "a table freed before the flush",
    "a_link_to_memory_that_is_no_table_is_an_error": "a link to what is no table",
    "a_frame_is_reused_only_after_its_translation_is_gone_everywhere": "frames freed before the flush",
    "a_range_is_reused_only_after_everything_in_it_is_gone_links_included": "a table freed after a TLBI of the last level",
    # tlbi.rs, words.rs
    "a_tlbi_that_comes_before_the_dsb_is_told_at_once": "no DSB before the TLBI",
    "a_plain_link_needs_a_barrier_behind_the_zeroing_of_its_table": "a table linked before its zeroes are visible",
    "a_page_may_be_mapped_below_a_link_that_another_cpu_is_still_to_complete": "mapped below a link that is not complete",
    # What the engine's schedules have planted.
    "Defect::NoTlbi": "no TLBI",
    "Defect::LastLevelOnly": "a table freed after a TLBI of the last level",
    "Defect::NoLeadingDsb": "no DSB before the TLBI",
    "Defect::NoTrailingDsb": "no DSB behind the TLBI",
    "Defect::FreedBeforeFlush": "a table freed before the flush",
    "Defect::PlainLink": "a table linked before its zeroes are visible",
}
"""By the name of the test, or of the defect."""

OTHERS: dict[str, str] = dict.fromkeys(
    ("a_group_of_frames_that_are_not_aligned_to_it_is_refused", "a_group_that_does_not_begin_at_a_multiple_of_its_length_is_refused"), ENCODING
)
OTHERS |= dict.fromkeys(("res0_bits_in_a_link_of_a_large_granule_are_refused_unless_tolerated", "reserved_encodings_and_misaligned_blocks_are_refused"), ENCODING)
OTHERS |= dict.fromkeys(("an_output_beyond_the_implemented_size_is_refused", "a_range_tlbi_without_the_feature_is_undefined"), ENCODING)
OTHERS |= dict.fromkeys(("fields_that_overflow_their_bits_are_refused", "a_misaligned_range_is_not_what_its_operand_says"), ENCODING)
OTHERS |= {"a_range_from_within_64k_is_not_what_its_operand_says_with_ds": ENCODING}
OTHERS |= dict.fromkeys(("a_table_freed_twice_is_an_error", "one_table_at_two_places_is_an_error"), OWN_RULE)
OTHERS |= {"a_linear_map_that_holds_the_tables_is_not_broken_under_their_feet": OWN_RULE, "a_table_among_the_members_of_a_group_of_blocks_is_mixed": OWN_RULE}
OTHERS |= {"in_place_on_a_cpu_that_does_not_tolerate_it_is_found_out": POLICY}
OTHERS |= dict.fromkeys(("Defect::NoDmb", "Defect::PlainClose", "Defect::NoBarrierBeforeQuestion"), WINDOWS)
OTHERS |= dict.fromkeys(("two_operations_may_share_a_flush", "every_three_edits_in_one_batch", "assert_finished", "go_on", "assert_broken", "search", "Defect::None"), SPARE)
OTHERS |= {"a_purge_with_all_its_steps_is_sound_on_every_interleaving": SPARE}
"""Mutants of something else, with the reason. Of aliases.rs all are: see `reason`."""


@dataclass(frozen=True)
class Known:
    """A mutant that there is, and where."""

    name: str
    file: str


def listed(root: Path = ROOT) -> list[Known]:
    """All mutants: tests of the judge that expect a broken rule, and the defects that schedules have planted."""
    tests = root / "kernel/mmu-model/tests"
    found: list[Known] = []
    for path in sorted([*tests.glob("*.rs"), *tests.glob("exhaustive/*.rs")]):
        text = path.read_text()
        for match in re.finditer(r"^( *)fn (\w+)(?:<G>)?\(", text, re.MULTILINE):
            body = text[match.end() : text.find(f"\n{match[1]}}}", match.end())]
            if re.search(r"assert_broken|violations\(\)|should_panic|\bbroken\.|BTreeSet::new|is_found_out", match[0] + body):
                found.append(Known(match[2], path.name))
    seat = (root / "kernel/paging/tests/interleaved/seat.rs").read_text()
    defects = re.search(r"pub enum Defect \{(.*?)\n\}", seat, re.DOTALL)
    found += [Known(f"Defect::{name}", "seat.rs") for name in re.findall(r"^    (\w+),", defects[1] if defects else "", re.MULTILINE)]
    if len({known.file for known in found}) < 8:
        raise ScriptError("the mutants of the judge are not where they were")
    return found


def reason(known: Known) -> str:
    return MEMORY_TYPES if known.file == "aliases.rs" else OTHERS.get(known.name, "")


def without_answer(known: list[Known]) -> Iterator[str]:
    """What is wrong with the tables above: a mutant that neither has, and names that no mutant has any more."""
    names = {one.name for one in known}
    for one in known:
        if (one.name in COUNTERPARTS) == bool(reason(one)):
            yield f"{one.file}: {one.name} has {'both' if reason(one) else 'neither'} a counterpart {'and' if reason(one) else 'nor'} a reason"
    for name in {*COUNTERPARTS, *OTHERS} - names:
        yield f"{name}: no such mutant"
    for name in {*COUNTERPARTS.values()} - set(BROKEN):
        yield f"{name}: no such counterpart"
    for name in set(BROKEN) - {*COUNTERPARTS.values()}:
        yield f"{name}: the counterpart of nothing"
