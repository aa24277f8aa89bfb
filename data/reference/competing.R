# Competing risks: the Aalen-Johansen estimate of survival::survfit (multi-state, standard errors
# by the infinitesimal jackknife) on survival::mgus2, plasma cell malignancy or death without it,
# all rows and by sex. Run here: Rscript competing.R writes competing.csv and competing.json.
library(survival)
library(jsonlite)
mgus <- with(mgus2, data.frame(
  time = ifelse(pstat == 0, futime, ptime), event = ifelse(pstat == 0, 2 * death, 1),
  age = age, sex = as.character(sex)
))
write.csv(mgus, "competing.csv", row.names = FALSE, quote = FALSE)
at <- c(24, 60, 120, 240)
estimate <- function(rows) {
  s <- summary(survfit(Surv(time, factor(event, 0:2)) ~ 1, rows), times = at)
  list(pstate = s$pstate[, 2:3], se = s$std.err[, 2:3])
}
result <- list(at = at, all = estimate(mgus), F = estimate(mgus[mgus$sex == "F", ]),
               M = estimate(mgus[mgus$sex == "M", ]))
write(toJSON(result, digits = 10, auto_unbox = TRUE), "competing.json")
