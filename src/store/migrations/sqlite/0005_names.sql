-- Display names, the same names ignoring case, and their looks.

alter table users add column display_key text;   -- display_name, ignoring case
-- The same for all names that look alike: in small letters, and in capitals.
alter table users add column display_look text;
alter table users add column display_look_capitals text;
create unique index users_display_look on users (display_look) where display_look is not null;
create unique index users_display_look_capitals on users (display_look_capitals)
    where display_look_capitals is not null;
create index users_display_key on users (display_key) where display_key is not null;
-- Both looks of a user name, which consists of small letters and digits.
create index users_look on users (
    replace(replace(replace(replace(name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l'));
