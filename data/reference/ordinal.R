# Cumulative link model by MASS::polr on MASS::housing (1681 answers in 72 rows with frequencies).
# Writes housing.csv and ordinal_mass.json, the part "housing" of ordinal.json; the parts "wine" and
# "soup" are copied from the oracles of the project (ordinal::clm, clmm).
suppressMessages(library(MASS))
d <- data.frame(sat = as.character(housing$Sat), infl = as.character(housing$Infl),
                type = as.character(housing$Type), cont = as.character(housing$Cont),
                freq = housing$Freq)
write.csv(d, "housing.csv", row.names = FALSE, quote = FALSE)
m <- polr(Sat ~ Infl + Type + Cont, weights = Freq, data = housing, Hess = TRUE,
          control = list(reltol = 1e-15, maxit = 5000))
s <- coef(summary(m))
num <- function(x) paste0("[", paste(sprintf("%.15g", x), collapse = ", "), "]")
chr <- function(x) paste0("[", paste(sprintf('"%s"', x), collapse = ", "), "]")
cat(sprintf('{"origin": "MASS::polr, R %s, MASS %s", "logLik": %.15g, "names": %s, "estimate": %s, "se": %s}\n',
    getRversion(), packageVersion("MASS"), as.numeric(logLik(m)), chr(rownames(s)), num(s[, 1]), num(s[, 2])),
    file = "ordinal_mass.json")
