-- Returns {generation, value, milliseconds to live}, or false if there is no value.

return generation and {generation, value, value_end - now} or false
