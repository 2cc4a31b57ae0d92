mod alignment;
mod areas;
mod atomics;
mod bad_input;
mod breaks;
mod bulk;
mod code;
mod counts;
mod cpus;
mod devices;
mod errata;
mod faults;
mod frames;
mod initrd;
mod lazy;
mod leaf_sizes;
mod locks;
pub(super) mod masked;
mod mixed_orders;
mod order_lists;
mod partial;
mod percpu;
mod pmu;
mod random;
mod stress;
mod test_vmalloc;
mod tree;
mod vmalloc_api;
mod walkers;
mod wide;

use super::context::Context;
use super::failure::TestResult;

#[derive(Clone, Copy, Debug)]
pub struct Test {
    pub name: &'static str,
    pub run: fn(&Context) -> TestResult,
}

macro_rules! tests {
    ($($name:literal => $run:expr,)*) => {
        &[$(Test { name: $name, run: $run },)*]
    };
}

/// In the order of runs: what others depend on comes first.
pub const ALL: &[Test] = tests! {
    "bulk.fills_equal_single_stores" => bulk::fills_equal_single_stores,
    "bulk.folds_equal_single_loads" => bulk::folds_equal_single_loads,
    "bulk.one_bit_is_not_vacant" => bulk::one_bit_is_not_vacant,
    "bulk.blocks_end_before_the_first_wrong_one" => bulk::blocks_end_before_the_first_wrong_one,
    "bulk.runs_end_at_the_first_wrong_frame" => bulk::runs_end_at_the_first_wrong_frame,
    "bulk.memory_functions_equal_byte_loops" => bulk::memory_functions_equal_byte_loops,

    "tree.audit_of_the_live_tree_finds_nothing" => tree::audit_finds_nothing,
    "tree.audit_of_live_groups_and_blocks_finds_nothing" => tree::audit_of_groups_and_blocks,
    "tree.linear_map_has_the_largest_leaves" => tree::linear_map_has_the_largest_leaves,
    "tree.every_leaf_of_the_linear_map_is_right" => faults::linear_map_is_right,
    "tree.the_device_tree_window_has_its_pages_only" => tree::device_tree_window_has_its_pages_only,
    "tree.one_page_of_the_linear_map_can_change_and_change_back" => tree::linear_map_can_be_cut,
    "tree.every_page_of_every_section_has_its_permissions" => faults::sections_have_their_permissions,

    "frames.boot_makes_states_for_a_fixed_number_of_them" => frames::states_at_boot,
    "frames.blocks_of_every_order_are_aligned_and_disjoint" => frames::aligned_and_disjoint,
    "frames.bad_frees_are_refused_and_change_nothing" => frames::bad_frees_are_refused,
    "frames.a_split_block_is_freed_frame_by_frame" => frames::split_block,
    "frames.zeroed_frames_are_zero" => frames::zeroed_frames_are_zero,
    "frames.pages_from_all_over_ram_hold_their_own_data" => frames::pages_from_all_over,
    "frames.all_of_ram_can_be_had_and_comes_back" => frames::exhausted_and_freed,
    "frames.what_other_cpus_keep_is_had_by_one_that_is_short" => frames::kept_by_other_cpus,

    "map.range.one_page_is_one_4k_leaf" => leaf_sizes::one::<0, 0>,
    "map.range.64k_is_one_group_of_pages" => leaf_sizes::one::<0, 1>,
    "map.range.2m_is_one_block" => leaf_sizes::one::<0, 2>,
    "map.range.32m_is_one_group_of_blocks" => leaf_sizes::one::<0, 3>,
    "map.range.1g_is_one_block" => leaf_sizes::one::<0, 4>,
    "map.range.16g_is_one_group_of_blocks" => leaf_sizes::one::<0, 5>,
    "map.array.one_page_is_one_4k_leaf" => leaf_sizes::one::<1, 0>,
    "map.array.64k_is_one_group_of_pages" => leaf_sizes::one::<1, 1>,
    "map.array.2m_is_one_block" => leaf_sizes::one::<1, 2>,
    "map.array.32m_is_one_group_of_blocks" => leaf_sizes::one::<1, 3>,
    "map.array.1g_is_one_block" => leaf_sizes::one::<1, 4>,
    "map.array.16g_is_one_group_of_blocks" => leaf_sizes::one::<1, 5>,
    "map.extents.one_page_is_one_4k_leaf" => leaf_sizes::one::<2, 0>,
    "map.extents.64k_is_one_group_of_pages" => leaf_sizes::one::<2, 1>,
    "map.extents.2m_is_one_block" => leaf_sizes::one::<2, 2>,
    "map.extents.32m_is_one_group_of_blocks" => leaf_sizes::one::<2, 3>,
    "map.extents.1g_is_one_block" => leaf_sizes::one::<2, 4>,
    "map.extents.16g_is_one_group_of_blocks" => leaf_sizes::one::<2, 5>,
    "map.a_block_of_level_0_is_one_leaf" => leaf_sizes::one::<0, 6>,
    "map.limited_to_a_leaf_size_uses_no_larger_one" => leaf_sizes::limited_leaves,

    "map.range.every_offset_modulo_2m_gets_the_largest_leaves" => alignment::every_offset_modulo_2m::<0>,
    "map.array.every_offset_modulo_2m_gets_the_largest_leaves" => alignment::every_offset_modulo_2m::<1>,
    "map.extents.every_offset_modulo_2m_gets_the_largest_leaves" => alignment::every_offset_modulo_2m::<2>,
    "map.range.every_offset_modulo_32m_gets_the_largest_leaves" => alignment::every_offset_modulo_32m::<0>,
    "map.array.every_offset_modulo_32m_gets_the_largest_leaves" => alignment::every_offset_modulo_32m::<1>,
    "map.extents.every_offset_modulo_32m_gets_the_largest_leaves" => alignment::every_offset_modulo_32m::<2>,
    "map.array.mixed_runs_get_the_largest_leaves" => alignment::mixed_runs_as_array,
    "map.extents.mixed_runs_get_the_largest_leaves" => alignment::mixed_runs_as_extents,
    "map.all_sources_of_the_same_pages_get_the_same_leaves" => alignment::all_sources_get_the_same_leaves,
    "map.array.shuffled_frames_map_no_wrong_page" => alignment::shuffled_frames,
    "map.array.shuffled_64k_chunks_map_no_wrong_page" => alignment::shuffled_groups,

    "map.array.orders_8_8_8_8_at_2m_map_no_wrong_page" => order_lists::list::<0, 0>,
    "map.array.orders_8_8_8_8_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<0, 1>,
    "map.array.orders_4_8_8_8_at_2m_map_no_wrong_page" => order_lists::list::<1, 0>,
    "map.array.orders_4_8_8_8_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<1, 1>,
    "map.array.orders_8_4_8_8_at_2m_map_no_wrong_page" => order_lists::list::<2, 0>,
    "map.array.orders_8_4_8_8_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<2, 1>,
    "map.array.orders_4_9_9_at_2m_map_no_wrong_page" => order_lists::list::<3, 0>,
    "map.array.orders_4_9_9_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<3, 1>,
    "map.array.orders_5_and_sixteen_7s_at_2m_map_no_wrong_page" => order_lists::list::<4, 0>,
    "map.array.orders_5_and_sixteen_7s_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<4, 1>,
    "map.array.orders_9_8_4_at_2m_map_no_wrong_page" => order_lists::list::<5, 0>,
    "map.array.orders_9_8_4_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<5, 1>,
    "map.array.orders_8_8_4_4_0_at_2m_map_no_wrong_page" => order_lists::list::<6, 0>,
    "map.array.orders_8_8_4_4_0_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<6, 1>,
    "map.array.orders_7_7_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<7, 1>,
    "map.array.orders_six_7s_at_2m_and_64k_map_no_wrong_page" => order_lists::list::<8, 1>,

    "map.every_memory_type_is_what_par_says" => alignment::memory_types,
    "map.highest_bits_tell_addresses_apart" => wide::highest_bits_tell_addresses_apart,
    "map.memory_above_48_bits_is_what_par_says" => wide::memory_above_48_bits_is_what_par_says,
    "map.a_block_where_pages_were_maps_no_page_of_them" => alignment::block_after_pages,
    "map.a_taken_page_refuses_the_whole_range" => partial::occupied_range_is_refused,
    "map.writable_and_executable_is_refused" => partial::writable_and_executable_is_refused,
    "map.any_table_page_may_be_missing_and_nothing_is_left_behind" => partial::every_table_may_be_missing,

    "unmap.one_page_of_a_64k_group_keeps_the_other_15" => partial::unmap_page_of_page_group,
    "unmap.one_page_of_a_2m_block_keeps_the_other_511" => partial::unmap_page_of_block,
    "unmap.a_slice_across_groups_of_a_2m_block_keeps_the_rest" => partial::unmap_across_groups_of_block,
    "unmap.the_edges_of_a_2m_block_keep_the_rest" => partial::unmap_edges_of_block,
    "unmap.one_page_of_a_32m_group_keeps_the_rest" => partial::unmap_page_of_block_group,
    "unmap.one_block_of_a_32m_group_keeps_the_other_15" => partial::unmap_block_of_block_group,
    "unmap.one_page_of_a_1g_block_keeps_the_rest" => partial::unmap_page_of_1g_block,
    "unmap.a_page_faults_at_level_3" => faults::level_3,
    "unmap.a_block_faults_at_level_2" => faults::level_2,
    "unmap.a_1g_block_faults_at_level_1" => faults::level_1,
    "unmap.leaves_no_stale_translation_of_a_page" => faults::no_stale_translation,

    "protect.one_page_of_a_64k_group_keeps_the_other_15_writable" => partial::protect_page_of_page_group,
    "protect.one_page_of_a_2m_block_keeps_the_other_511_writable" => partial::protect_page_of_block,
    "protect.a_slice_of_a_2m_block_keeps_the_rest_writable" => partial::protect_slice_of_block,
    "protect.one_page_of_a_32m_group_keeps_the_rest_writable" => partial::protect_page_of_block_group,
    "protect.one_page_of_a_1g_block_keeps_the_rest_writable" => partial::protect_page_of_1g_block,
    "protect.whole_leaves_keep_their_size" => partial::protect_whole_leaves,
    "protect.leaves_no_stale_permission_of_a_page" => faults::no_stale_permission,
    "protect.invalid_pages_fault_and_are_valid_again" => partial::invalid_and_valid_again,
    "split.cuts_where_it_is_told_and_nowhere_else" => partial::split_cuts_where_it_is_told,
    "coalesce.single_pages_become_groups_and_blocks" => partial::coalesce_pages,
    "edit.random_sequences_equal_a_page_model" => random::random_edits_equal_a_page_model,

    "fault.nothing_is_mapped_at_level_0" => faults::level_0,
    "fault.the_null_page_and_the_lower_half_are_not_reached" => faults::lower_half_faults,
    "fault.in_a_window_of_its_own_cpu_is_final" => breaks::a_fault_in_its_own_window_is_final,
    "fault.a_store_to_read_only_is_a_permission_fault" => faults::write_to_read_only,
    "fault.a_call_of_data_is_a_permission_fault" => faults::execute_data,
    "fault.text_and_constants_are_read_only_by_every_alias" => faults::text_is_read_only,
    "fault.no_leaf_of_the_tree_makes_text_writable" => faults::text_has_no_writable_alias,
    "fault.the_guard_page_of_every_kind_of_area_is_not_reached" => areas::guard_pages,
    "fault.the_guard_page_of_every_stack_is_not_reached" => areas::stack_guards,

    "walkers.every_registered_walker_maps_every_page_and_leaves_none" => walkers::registered,

    "count.a_fresh_map_is_one_dsb_one_isb_and_no_tlbi" => counts::fresh_map,
    "count.an_unmap_of_a_page_is_one_tlbi" => counts::unmap_one_page,
    "count.an_unmap_of_pages_is_the_fewest_tlbis" => counts::unmap_many_pages,
    "count.an_unmap_of_a_64k_group_is_as_many_tlbis_as_of_its_pages" => counts::unmap_page_group,
    "count.an_unmap_of_a_block_is_one_tlbi" => counts::unmap_block,
    "count.an_unmap_of_a_32m_group_is_the_tlbis_of_its_blocks" => counts::unmap_block_group,
    "count.an_unmap_above_the_threshold_is_one_tlbi_of_all" => counts::unmap_above_the_threshold,
    "count.a_permission_change_of_whole_leaves_is_one_flush" => counts::protect_in_place,
    "count.a_cut_is_one_break" => counts::cut_block,
    "count.many_unmaps_are_one_flush" => counts::many_unmaps_one_flush,
    "count.every_tlbi_is_owed_and_every_debt_is_paid" => stress::every_tlbi_is_owed,

    "vmalloc.every_page_is_a_frame_of_its_own" => areas::vmalloc_maps_its_own_frames,
    "vmalloc.megabytes_lie_in_2m_leaves" => areas::vmalloc_uses_blocks,
    "vmalloc.vzalloc_is_zero" => areas::vzalloc_is_zero,
    "vmalloc.to_pfn_finds_the_frame_in_any_leaf" => areas::vmalloc_to_pfn_in_any_leaf,
    "vmalloc.bad_frees_are_refused_and_named" => areas::bad_frees_are_refused,
    "vmalloc.bad_sizes_are_refused" => areas::bad_sizes_are_refused,
    "vmalloc.any_allocation_may_fail_and_nothing_is_left_behind" => areas::any_allocation_may_fail,
    "vmalloc.random_areas_keep_their_data" => areas::random_areas_keep_their_data,
    "vmap.memory_that_begins_inside_a_block_still_gets_blocks" => areas::vmap_places_by_phase,
    "vmap.order_lists_map_no_wrong_page" => areas::vmap_of_order_lists,
    "vmap.a_mebibyte_of_mixed_orders_is_in_groups_where_they_fit" => mixed_orders::one_mebibyte,
    "vmalloc.frames_and_addresses_are_lazy_until_a_flush" => vmalloc_api::lazy_purge,
    "lazy.stale_translations_see_lazily_freed_frames_until_the_purge" => lazy::stale_translations_see_lazily_freed_frames,
    "lazy.lazily_freed_frames_are_had_by_everybody" => lazy::lazily_freed_frames_are_had_by_everybody,
    "lazy.idle_cpus_do_deferred_work" => lazy::idle_cpus_do_deferred_work,
    "lazy.deferred_areas_are_out_after_a_flush_whoever_has_them_in_hand" => lazy::deferred_areas_are_out_after_a_flush,
    "lazy.thresholds_bound_what_is_lazy" => lazy::thresholds_bound_what_is_lazy,
    "lazy.pressure_on_frames_forces_the_purge" => lazy::pressure_on_frames_forces_it,
    "lazy.pressure_on_tables_forces_the_purge_and_the_map_begins_anew" => lazy::pressure_on_tables_forces_it,
    "lazy.pressure_on_addresses_forces_the_purge" => lazy::pressure_on_addresses_forces_it,
    "vmalloc.vrealloc_moves_no_page" => vmalloc_api::vrealloc_moves_no_page,
    "vmalloc.vread_copies_memory_and_zeroes_holes" => vmalloc_api::vread_copies,
    "vmalloc.vmallocinfo_lists_leaves_and_devices" => vmalloc_api::vmallocinfo_lists,
    "vmap.pages_handed_over_are_freed_with_the_area" => vmalloc_api::pages_handed_over,
    "vm_map_ram.shares_a_block_and_refuses_a_wrong_length" => vmalloc_api::map_ram,
    "set_memory.a_slice_of_a_block_changes_with_its_alias_and_alone" => vmalloc_api::set_memory_slice,
    "set_memory.invalid_pages_fault_by_both_addresses" => vmalloc_api::set_memory_invalid,
    "set_memory.a_missing_table_changes_nothing" => vmalloc_api::set_memory_all_or_nothing,
    "set_memory.read_only_neighbours_in_a_block_go_without_a_table" => vmalloc_api::neighbours_stay_apart,
    "set_memory.an_area_with_a_changed_page_goes_without_a_table" => vmalloc_api::end_needs_no_table,
    "code.runs_on_every_cpu_as_it_was_written" => code::runs_as_it_was_written,
    "code.reaches_cpus_that_run_meanwhile" => code::reaches_cpus_that_run,
    "code.may_be_mapped_executable" => code::mapped_executable,
    "vmalloc.the_cases_of_test_vmalloc_pass" => test_vmalloc::suite,
    "heap.grows_by_vmalloc" => areas::heap_grows_by_vmalloc,
    "heap.frees_what_it_grew_by" => areas::heap_frees,

    "bad_input.nothing_asked_for_is_refused" => bad_input::nothing_asked_for,
    "bad_input.more_than_there_is_or_can_be_counted_is_refused" => bad_input::too_large,
    "bad_input.an_alignment_of_no_power_of_two_is_refused" => bad_input::alignment_of_no_power_of_two,
    "bad_input.physical_ranges_past_the_end_are_refused" => bad_input::physical_overflow,
    "bad_input.ram_is_no_device" => bad_input::device_that_is_ram,
    "bad_input.a_null_page_is_named_and_nothing_stays_mapped" => bad_input::null_page,
    "bad_input.duplicate_pages_are_mapped" => bad_input::duplicate_pages,
    "bad_input.a_page_is_taken_over_once_and_from_its_owner" => bad_input::pages_taken_over,
    "bad_input.writable_and_executable_pages_are_refused" => bad_input::writable_and_executable,
    "bad_input.a_part_outside_of_the_area_is_refused" => bad_input::part_outside,
    "bad_input.an_area_with_changed_permissions_does_not_move" => bad_input::changed_permissions,
    "bad_input.a_double_free_names_the_area_and_who_freed_it" => bad_input::double_free,
    "bad_input.a_free_of_an_interior_address_names_the_area" => bad_input::interior_address,
    "bad_input.a_free_of_a_guard_names_what_it_guards" => bad_input::guard_page,
    "bad_input.a_free_of_a_foreign_address_is_refused" => bad_input::foreign_address,
    "bad_input.a_free_of_an_address_in_a_page_is_refused" => bad_input::odd_address,
    "bad_input.an_area_that_has_an_owner_is_not_freed_by_another" => bad_input::anothers_area,
    "bad_input.a_kind_is_freed_by_its_own_call_only" => bad_input::wrong_kind,
    "bad_input.an_unmap_of_another_length_is_refused" => bad_input::wrong_length,
    "bad_input.what_is_not_mapped_is_said_to_be_so" => bad_input::nothing_mapped,
    "bad_input.addresses_may_run_out" => bad_input::addresses_run_out,
    "bad_input.frames_tables_and_nodes_may_run_out" => bad_input::frames_run_out,
    "bad_input.who_may_not_wait_is_refused_where_he_would" => bad_input::lock_is_taken,
    "bad_input.as_many_frees_are_deferred_as_there_is_room_for" => bad_input::too_many_deferred,
    "bad_input.a_deferred_free_that_is_wrong_is_counted_and_changes_nothing" => bad_input::deferred_bad_frees,
    "bad_input.every_error_has_a_test" => bad_input::every_error_has_a_test,

    "ioremap.kinds_are_what_par_says" => devices::ioremap_kinds,
    "ioremap.keeps_the_offset_in_the_page" => devices::ioremap_keeps_the_offset,
    "ioremap.of_ram_is_refused" => devices::ioremap_of_ram_is_refused,
    "ioremap.cache_of_ram_ends_at_once" => devices::ioremap_cache_of_ram_ends_at_once,
    "device.the_console_runs_through_an_ioremap" => devices::console_is_an_ioremap,
    "device.the_pcie_window_shows_the_host_bridge" => devices::ecam_shows_the_host_bridge,
    "device.vmap_pfn_reaches_a_device" => devices::vmap_pfn_reaches_a_device,
    "device.the_rtc_counts_seconds" => devices::rtc_counts_seconds,
    "initrd.shuffled_copy_has_the_same_crc" => initrd::copy_has_the_same_crc,

    "errata.the_policy_is_what_any_cpu_needs" => errata::policy_is_of_every_cpu,
    "features.what_is_used_is_what_every_cpu_has" => errata::used_is_what_every_cpu_has,
    "features.atomics_are_what_every_cpu_has" => atomics::are_what_every_cpu_has,
    "features.atomics_do_what_they_say" => atomics::do_what_they_say,
    "locks.an_order_that_could_deadlock_is_refused" => locks::order_is_checked,

    "smp.each_cpu_has_variables_of_its_own" => percpu::each_has_its_own,
    "smp.memory_is_taken_for_the_cpus_of_the_machine" => percpu::memory_follows_the_machine,
    "smp.words_that_all_write_have_cache_lines_of_their_own" => percpu::hot_words_have_their_own_lines,
    "smp.atomics_exclude_each_other" => atomics::exclude_each_other,
    "smp.a_mapping_is_seen_by_all_and_then_by_none" => cpus::mapping_is_seen_and_goes,
    "smp.read_only_is_so_for_all" => cpus::read_only_is_seen,
    "smp.parts_of_one_block_go_at_once" => cpus::parts_of_one_block_go_at_once,
    "smp.a_slow_waker_hands_over_its_job" => cpus::a_slow_waker_hands_over_its_job,
    "smp.all_cpus_allocate_and_free_at_once" => cpus::all_allocate_at_once,
    "smp.a_frame_has_one_owner_while_all_cpus_are_short" => cpus::all_are_short_of_frames,
    "smp.areas_keep_their_data_whoever_frees_them" => stress::own,
    "smp.failed_calls_change_nothing_and_leave_nothing" => stress::own_with_faults,
    "smp.nothing_comes_back_before_its_flush" => stress::second,
    "smp.all_cpus_run_while_permissions_and_the_linear_map_change" => stress::permissions_meanwhile,
    "smp.a_fault_in_a_break_is_retried_and_counted" => breaks::a_fault_is_retried,
    "smp.a_fault_waits_as_long_as_the_window_is_open" => breaks::a_fault_waits_as_long_as_the_window_is_open,
    "smp.a_polled_word_outlives_many_windows" => breaks::a_polled_word_outlives_many_windows,
    "smp.a_hole_is_reported_beside_a_window" => breaks::a_hole_is_reported_beside_a_window,
    "smp.reads_go_on_while_blocks_are_cut_and_folded" => cpus::reads_go_on_while_blocks_are_cut,

    "pmu.cycles_and_time_grow_with_the_work" => pmu::cycles_and_time_grow_with_the_work,
    "pmu.instructions_are_those_of_a_loop" => pmu::instructions_are_those_of_a_loop,
    "pmu.an_overflow_is_counted" => pmu::an_overflow_is_counted,

    "masked.no_section_of_the_boot_was_longer_than_one_may_be" => masked::sections_have_a_bound,
};
