-- Messages with files that were indexed before the index knew of files are indexed again.
update searchable set since = version
where room_id in (select m.room_id from messages m where m.files is not null);
